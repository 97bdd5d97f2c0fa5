"""The sentences every presentation of an answer must show."""

from __future__ import annotations

_NOTICE = (
    "Research use only. Not a medical device, not for diagnosis: similar cases are shown "
    "to a reader who decides."
)
_SYNTHETIC_CASES = (
    " The cases are SYNTHETIC (computer-made phantoms): nothing here says anything about a "
    "real patient."
)
_SYNTHETIC_MODEL = (
    " The model was trained on SYNTHETIC (computer-made) phantoms only: what it finds similar "
    "among real patients has not been validated."
)


def notice(
    *, model_is_synthetic: bool, cases_are_synthetic: bool, threshold_caution: str | None = None
) -> str:
    """Say what the answer is not; more where the model or the cases are phantoms.

    Parameters
    ----------
    threshold_caution : str or None
        As of ``IndexInfo``: why "no similar case" is not to be relied on.
    """
    text = _NOTICE
    if model_is_synthetic:
        text += _SYNTHETIC_MODEL
    if cases_are_synthetic:
        text += _SYNTHETIC_CASES
    if threshold_caution is not None:
        text += f" {threshold_caution}"
    return text
