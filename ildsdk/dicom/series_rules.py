"""Which series of a study is answered, and why not the others.

Series are compared over their usable slices (:mod:`ildsdk.dicom.image_rules`), after the rules of
:mod:`ildsdk.dicom.geometry`. The first rule that tells two series apart decides:

1. Coverage: a series reaching over less than half of the longest one's extent comes last
   (bolus tracking, single test slices).
2. Original before derived (processed, averaged, reformatted axial) sections.
3. A series described as expiratory comes after the others: the database is inspiratory.
4. Lung (sharp, high-frequency) kernel before other or unknown kernels.
5. Thinner slices first, in steps of 0.1 mm; unknown thickness last.
6. More slices first.
7. Lower SeriesInstanceUID, so that the choice never depends on the file order.

``series_uid`` overrides the choice, never the rules for a single image.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Final

from ildsdk.dicom.geometry import OrderedSeries

MIN_COVERAGE: Final = 0.5

_NAMED_LUNG_KERNELS: Final = frozenset(
    # GE; then Philips.
    {"BONE", "BONEPLUS", "BONE+", "EDGE", "CHST", "CHEST", "ULTRA"} | {"L", "YB", "YC", "YD"}
)
# Siemens: letters (body, head, iterative, ultra-high) and a number that grows with sharpness.
_SIEMENS: Final = re.compile(r"^(BR|BL|HR|UR|B|I|U)(\d\d)")
_SIEMENS_SHARP_FROM: Final = 50
# Canon/Toshiba: FC50-59 and FC80-89 are the lung and high-resolution families.
_CANON: Final = re.compile(r"^FC[58]\d")
_EXPIRATORY: Final = re.compile(r"\b(exp|expir\w*|exhal\w*)\b", re.I)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What the rules compare of one series."""

    series_instance_uid: str
    description: str
    ordered: OrderedSeries

    @property
    def kernel(self) -> str | None:
        """ConvolutionKernel of the first slice."""
        return self.ordered.slices[0].candidate.facts.kernel

    @property
    def slice_thickness_mm(self) -> float | None:
        """SliceThickness of the first slice."""
        return self.ordered.slices[0].candidate.facts.slice_thickness_mm

    @property
    def is_original(self) -> bool:
        """Whether no more than half of the slices are derived."""
        flags = [placed.candidate.is_original for placed in self.ordered.slices]
        return 2 * sum(flags) >= len(flags)

    @property
    def is_expiratory(self) -> bool:
        """Whether the series description says expiration."""
        return bool(_EXPIRATORY.search(self.description))


def is_lung_kernel(kernel: str | None) -> bool:
    """Whether a vendor's kernel name means a sharp (lung or bone) reconstruction.

    Parameters
    ----------
    kernel : str or None
        ConvolutionKernel as found, values separated by backslashes; the first one counts.
    """
    if not kernel:
        return False
    name = kernel.split("\\")[0].strip().upper()
    if name in _NAMED_LUNG_KERNELS or "LUNG" in name or _CANON.match(name):
        return True
    siemens = _SIEMENS.match(name)
    return siemens is not None and int(siemens[2]) >= _SIEMENS_SHARP_FROM


def choose(series: Sequence[SeriesFacts]) -> tuple[SeriesFacts, dict[str, str]]:
    """The series to answer, and a reason for each by SeriesInstanceUID.

    Parameters
    ----------
    series : sequence of SeriesFacts
        At least one, each with at least one slice.
    """
    longest = max(facts.ordered.extent_mm for facts in series)
    ranked = sorted(series, key=lambda facts: _rank(facts, longest))
    chosen = ranked[0]
    because = {chosen.series_instance_uid: _why_chosen(chosen, len(series))}
    for facts in ranked[1:]:
        because[facts.series_instance_uid] = _why_not(facts, chosen, longest)
    return chosen, because


def _rank(facts: SeriesFacts, longest: float) -> tuple[bool, bool, bool, bool, float, int, str]:
    thickness = facts.slice_thickness_mm
    return (
        facts.ordered.extent_mm < MIN_COVERAGE * longest,
        not facts.is_original,
        facts.is_expiratory,
        not is_lung_kernel(facts.kernel),
        1e6 if thickness is None else round(thickness, 1),
        -len(facts.ordered.slices),
        facts.series_instance_uid,
    )


def _why_chosen(facts: SeriesFacts, n_series: int) -> str:
    kind = "lung kernel" if is_lung_kernel(facts.kernel) else "kernel"
    origin = "original" if facts.is_original else "derived"
    thickness = facts.slice_thickness_mm
    thick = "unknown thickness" if thickness is None else f"{thickness:g} mm"
    rivals = "the only usable series" if n_series == 1 else f"first of {n_series} usable series"
    return f"chosen: {rivals}; {origin}, {kind} {facts.kernel or 'unknown'}, {thick}"


def _why_not(facts: SeriesFacts, chosen: SeriesFacts, longest: float) -> str:
    ours, theirs = _rank(facts, longest), _rank(chosen, longest)
    differing = next(
        number for number, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b
    )
    return (
        f"covers {facts.ordered.extent_mm:.0f} mm, under half of the longest series' "
        f"{longest:.0f} mm",
        "derived sections, the chosen series is original",
        "expiratory by its description",
        f"kernel {facts.kernel or 'unknown'} is no lung kernel, the chosen series has "
        f"{chosen.kernel}",
        f"slice thickness {facts.slice_thickness_mm} mm, the chosen series has "
        f"{chosen.slice_thickness_mm} mm",
        f"{len(facts.ordered.slices)} slices, the chosen series has {len(chosen.ordered.slices)}",
        "equal to the chosen series, which has the lower SeriesInstanceUID",
    )[differing]
