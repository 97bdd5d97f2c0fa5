"""The sentence every presentation of an answer must show."""

from __future__ import annotations

_NOTICE = (
    "Research use only. Not a medical device, not for diagnosis: similar cases are shown "
    "to a reader who decides."
)
_SYNTHETIC = (
    " The model or the cases are SYNTHETIC (computer-made phantoms): nothing here says "
    "anything about a real patient."
)


def notice(*, is_synthetic: bool) -> str:
    """Say what the answer is not; more where model or cases are phantoms."""
    return _NOTICE + (_SYNTHETIC if is_synthetic else "")
