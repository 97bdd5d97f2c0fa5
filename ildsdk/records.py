"""Frozen records that travel between stages, and the versioned JSON of the answers.

Records that hold arrays (:class:`CtSlice`, :class:`LungMask`) stay inside the
process; those under "answers" are what the user gets and serialise to JSON.
No record ever holds a patient's name, id or birth date.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ildsdk.explain import PairMaps

QUERY_SCHEMA = "ildsdk.query/1"
NOT_IN_JSON = ("pictures", "maps")
EMBED_SCHEMA = "ildsdk.embed/1"

# ---------------------------------------------------------------- between stages


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SkippedItem:
    """A file, series or slice that was not answered, and why.

    Attributes
    ----------
    level : {"file", "slice"}
        ``"file"``: refused from its header or bytes; ``"slice"``: its pixels were looked at
        (or would have been) but the method does not answer it.
    source : str
        Path inside the study with identifying parts removed, ``#frame`` appended
        for a frame of a multi-frame object.
    reason : str
        Stable code, for example ``"localizer"``, ``"series-not-chosen"``, ``"not-sampled"``.
    detail : str
        What was found and what was expected.
    """

    level: Literal["file", "slice"]
    source: str
    reason: str
    detail: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CtSlice:
    """Pixels and geometry of one axial CT slice.

    Attributes
    ----------
    pixels_hu : ndarray
        float32 ``(n_rows, n_columns)``, Hounsfield units, finite; padding is -1024 or less.
    pixel_spacing_mm : tuple of float
        ``(row_spacing, column_spacing)`` as in DICOM PixelSpacing.
    position_mm : float or None
        Position along the slice normal in mm, None where the file does not tell.
    frame : int or None
        Frame number from 1 in a multi-frame object.
    """

    pixels_hu: npt.NDArray[np.float32]
    pixel_spacing_mm: tuple[float, float]
    position_mm: float | None
    source: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    frame: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LungMask:
    """Lung parenchyma of one slice.

    Attributes
    ----------
    lung_mask : ndarray
        bool ``(n_rows, n_columns)``, C-contiguous, True inside lung parenchyma.
    threshold_hu : float
        The two-means threshold (method section 1.3), in HU.
    area_mm2 : float
        Area of the mask in square millimeters.
    """

    lung_mask: npt.NDArray[np.bool_]
    threshold_hu: float
    area_mm2: float


# ---------------------------------------------------------------- answers


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Neighbor:
    """One answer to one query slice.

    Attributes
    ----------
    rank : int
        From 1, best first.
    score : float
        Cosine similarity in [-1, 1], larger is better.
    item_id : str
        Stable key of the indexed slice.
    case_id, label : str
        The indexed case and its diagnosis.
    position_mm : float or None
        Position of the indexed slice along its normal, in mm.
    site, verification : str or None
        Where the case comes from, how its diagnosis was proven (as given at index build).
    """

    rank: int
    score: float
    item_id: str
    case_id: str
    label: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    position_mm: float | None
    site: str | None = None
    verification: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SlicePictures:
    """Pictures of a query slice for reports; not part of the JSON.

    Attributes
    ----------
    windowed : ndarray
        uint8 ``(h, w)``, lung window, isotropic pixels.
    outline : ndarray
        bool ``(h, w)``, inner border of the lung mask on the same grid.
    """

    windowed: npt.NDArray[np.uint8]
    outline: npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SliceAnswer:
    """Neighbors of one query slice.

    Attributes
    ----------
    no_similar_case : bool
        True where the best score is under the index's calibrated threshold (or no
        item is left to compare with): the neighbors are shown, not to be relied on.
    timings_ms : dict
        Milliseconds by stage: decode, recognize, mask, radiomics, model_input, backbone, fusion,
        search; ``reused`` instead of recognize and what was not computed anew; with maps also
        map_backbone (where the backbone runs in 8 bits), explain and maps.
    pictures : SlicePictures or None
        Where they were asked for; not part of the JSON.
    maps : tuple of PairMaps
        Activation maps of the first neighbors, where they were asked for; not part of the JSON.
    """

    source: str
    sop_instance_uid: str
    frame: int | None
    position_mm: float | None
    lung_area_mm2: float
    neighbors: tuple[Neighbor, ...]
    no_similar_case: bool
    timings_ms: dict[str, float]
    pictures: SlicePictures | None = dataclasses.field(default=None, repr=False, compare=False)
    maps: tuple[PairMaps, ...] = dataclasses.field(default=(), repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaseRank:
    """One diagnosed case in the ranking of a study.

    Attributes
    ----------
    score : float
        Mean over the answered query slices of the best cosine any item of this case
        reached: exact, over all items, in every search mode.
    n_slices : int
        Query slices among whose neighbors this case stands.
    best_score : float
        Highest cosine of any of its items to any answered slice.
    """

    rank: int
    case_id: str
    label: str
    score: float
    n_slices: int
    best_score: float
    site: str | None = None
    verification: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelStatistic:
    """How often a diagnosis stands among the neighbors, beside its share of the index.

    Attributes
    ----------
    n_neighbors : int
        Neighbors with this label, summed over the answered slices.
    share : float
        ``n_neighbors`` over all neighbors, 0 to 1.
    n_top1_slices : int
        Query slices whose best neighbor has this label.
    prevalence : float
        Share of this label among the index's searched items, 0 to 1: what chance gives.
    """

    label: str
    n_neighbors: int
    share: float
    n_top1_slices: int
    prevalence: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSummary:
    """One series of the query study: what it is, whether it was chosen, and why.

    Attributes
    ----------
    slice_thickness_mm, spacing_mm : float or None
        SliceThickness; median distance between neighboring slices.
    kernel : str or None
        ConvolutionKernel as found.
    """

    series_instance_uid: str
    n_slices: int
    slice_thickness_mm: float | None
    spacing_mm: float | None
    kernel: str | None
    is_chosen: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StudyAnswer:
    """The answer to one study: its slices, the case ranking and class statistics.

    Attributes
    ----------
    n_excluded_items : int
        Indexed slices left out because they are of the query's own patient or study.
    no_similar_case : bool
        True where no answered slice reached the index's threshold.
    suggested_label : str or None
        Label of the best-ranked case; None where ``no_similar_case``.
    """

    study_instance_uid: str
    series: tuple[SeriesSummary, ...]
    slices: tuple[SliceAnswer, ...]
    cases: tuple[CaseRank, ...]
    labels: tuple[LabelStatistic, ...]
    no_similar_case: bool
    suggested_label: str | None
    n_excluded_items: int
    skipped: tuple[SkippedItem, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made an answer: software, bundle, index, execution provider, settings.

    Attributes
    ----------
    precision : str
        Arithmetic of the backbone that really ran: ``"fp32"``, ``"int8"`` or ``"fp16"``.
    is_synthetic : bool
        True where the indexed cases are phantoms (synthetic CT), not patients.
    model_is_synthetic : bool
        True where the model was trained on phantoms.
    notice : str
        The sentence every presentation of the answer must show.
    """

    ildsdk_version: str
    bundle_name: str
    bundle_hash: str
    index_name: str
    index_hash: str
    n_items: int
    n_cases: int
    provider: str
    precision: str
    n_threads: int
    radiomics_engine: str
    search_mode: str
    top_n: int
    every_mm: float
    exclude_same_patient: bool
    no_match_threshold: float | None
    is_synthetic: bool
    model_is_synthetic: bool
    notice: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """Everything one query gives back.

    Attributes
    ----------
    studies : tuple of StudyAnswer
        One per DICOM study found, in order of discovery.
    skipped : tuple of SkippedItem
        Files that belong to no answered study.
    timings_ms : dict
        Wall-clock milliseconds of the whole query: discover, total.
    """

    provenance: Provenance
    studies: tuple[StudyAnswer, ...]
    skipped: tuple[SkippedItem, ...]
    timings_ms: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping for JSON, with ``schema`` first, without pictures and maps."""
        return {"schema": QUERY_SCHEMA, **plain(self)}

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON text (no NaN) of :meth:`to_dict`."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbeddedSlice:
    """One embedded slice: ``embedding`` is float32 ``(d,)`` of unit norm."""

    source: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    frame: int | None
    position_mm: float | None
    embedding: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult:
    """Embeddings of a study, comparable only within the same ``bundle_hash``."""

    bundle_hash: str
    provider: str
    precision: str
    is_synthetic: bool
    notice: str
    slices: tuple[EmbeddedSlice, ...]
    skipped: tuple[SkippedItem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping for JSON, with ``schema`` first."""
        return {"schema": EMBED_SCHEMA, **plain(self)}

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON text (no NaN) of :meth:`to_dict`."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """A record (or what it holds) as mappings and lists for JSON, without pictures and maps."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in NOT_IN_JSON
        }
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return value
