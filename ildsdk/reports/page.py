"""From a query result to what the page template shows: grouping, anchors, pictures."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ildsdk.records import (
    LabelStatistic,
    Neighbor,
    Provenance,
    QueryResult,
    SliceAnswer,
    StudyAnswer,
)
from ildsdk.reports.images import image_data_uri, outline_data_uri, picture_data_uri
from ildsdk.reports.map_colors import css_stops
from ildsdk.reports.map_view import (
    MISSING_TEXTS,
    OF_THE_INDEX,
    SIDE,
    PairView,
    encoded_size,
    pair_views,
)
from ildsdk.reports.palette import (
    COLORS,
    OUTLINE_RGB,
    SHAPES,
    SURFACE_DARK,
    SURFACE_IMAGE,
    SURFACE_LIGHT,
    LabelMark,
    mark_labels,
)
from ildsdk.reports.summaries import (
    SkippedGroup,
    StageTiming,
    count_noun,
    format_duration,
    group_skipped,
    time_stages,
)

N_SHOWN = 4
"""Neighbors of a slice shown beside it."""
N_PICTURED = 12
"""Neighbors of a slice shown with a picture; the others stand in a table."""
N_LISTED = 100
"""Neighbors of a slice on the page at all, and skipped items listed for one reason."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SliceView:
    """One answered slice: where it stands on the page and what is drawn.

    ``picture_id`` names the picture among the page's definitions, where maps are drawn over it.
    """

    anchor: str
    number: int
    answer: SliceAnswer
    picture: str | None
    outline: str | None
    shown: tuple[Neighbor, ...]
    pictured: tuple[Neighbor, ...]
    listed: tuple[Neighbor, ...]
    n_unlisted: int
    pairs: tuple[PairView, ...] = ()
    picture_id: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """One study of the result.

    ``map_grid``: rows and columns of its maps, None without maps; ``map_problems``: why neighbors
    have none, where that holds for all of them.
    """

    anchor: str
    number: int
    answer: StudyAnswer
    slices: tuple[SliceView, ...]
    suggested: LabelStatistic | None
    skipped: tuple[SkippedGroup, ...]
    stages: tuple[StageTiming, ...]
    map_grid: tuple[int, int] | None = None
    map_problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """Everything the template reads."""

    generated_at: str
    provenance: Provenance
    studies: tuple[StudyView, ...]
    skipped: tuple[SkippedGroup, ...]
    timings_ms: Mapping[str, float]
    marks: Mapping[str, LabelMark]
    thumbs: Mapping[str, str]
    thumb_ids: Mapping[str, str]
    colors: tuple[tuple[str, str], ...] = COLORS
    shapes: tuple[str, ...] = SHAPES
    surface_light: str = SURFACE_LIGHT
    surface_dark: str = SURFACE_DARK
    surface_image: str = SURFACE_IMAGE
    outline_color: str = "rgb({}, {}, {})".format(*OUTLINE_RGB)
    n_listed: int = N_LISTED
    map_side: int = SIDE
    map_stops: tuple[tuple[float, str, float], ...] = ()


def build_page(
    result: QueryResult,
    thumbnails: Callable[[str], bytes | None],
    generated_at: datetime.datetime,
) -> PageView:
    """Collect what the template shows.

    Parameters
    ----------
    result : QueryResult
        The answer.
    thumbnails : callable
        ``item_id`` to encoded picture or None; asked once per distinct item shown.
    generated_at : datetime
        Time to write on the page.
    """
    studies = tuple(_study_view(number, study) for number, study in enumerate(result.studies, 1))
    # Neighboring slices share neighbors: each picture stands in the file once.
    thumbs: dict[str, str] = {}
    thumb_ids: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    asked: set[str] = set()
    for neighbor in _pictured_neighbors(studies):
        if neighbor.item_id in asked:
            continue
        asked.add(neighbor.item_id)
        encoded = thumbnails(neighbor.item_id)
        uri = image_data_uri(encoded) if encoded else None
        if uri is not None:
            thumb_ids[neighbor.item_id] = f"t{len(thumbs)}"
            thumbs[thumb_ids[neighbor.item_id]] = uri
            size = encoded_size(encoded) if encoded else None
            if size is not None:
                sizes[neighbor.item_id] = size
    studies = tuple(_with_maps(study, sizes) for study in studies)
    return PageView(
        generated_at=generated_at.strftime("%Y-%m-%d %H:%M:%S %Z").strip(),
        provenance=result.provenance,
        studies=studies,
        skipped=group_skipped(result.skipped),
        timings_ms=result.timings_ms,
        marks=mark_labels(_labels(result)),
        thumbs=thumbs,
        thumb_ids=thumb_ids,
        map_stops=css_stops() if any(study.map_grid for study in studies) else (),
    )


def _study_view(number: int, study: StudyAnswer) -> StudyView:
    anchor = f"study-{number}"
    suggested = next(
        (entry for entry in study.labels if entry.label == study.suggested_label), None
    )
    return StudyView(
        anchor=anchor,
        number=number,
        answer=study,
        slices=tuple(
            _slice_view(f"{anchor}-slice-{place}", place, answer)
            for place, answer in enumerate(study.slices, 1)
        ),
        suggested=suggested,
        skipped=group_skipped(study.skipped),
        stages=time_stages(study.slices),
    )


def _slice_view(anchor: str, number: int, answer: SliceAnswer) -> SliceView:
    pictures = answer.pictures
    neighbors = answer.neighbors
    return SliceView(
        anchor=anchor,
        number=number,
        answer=answer,
        picture=picture_data_uri(pictures.windowed) if pictures else None,
        outline=outline_data_uri(pictures.outline) if pictures else None,
        shown=neighbors[:N_SHOWN],
        pictured=neighbors[N_SHOWN:N_PICTURED],
        listed=neighbors[N_PICTURED:N_LISTED],
        n_unlisted=max(0, len(neighbors) - N_LISTED),
    )


def _with_maps(study: StudyView, sizes: Mapping[str, tuple[int, int]]) -> StudyView:
    """The study with its activation maps, as it is where it has none."""
    slices = tuple(_mapped_slice(view, sizes) for view in study.slices)
    grids = {
        (one.query_map.n_rows, one.query_map.n_columns) for view in slices for one in view.pairs
    }
    if not grids:
        return study
    missing = {one.missing for view in slices for one in view.pairs}
    return dataclasses.replace(
        study,
        slices=slices,
        map_grid=max(grids),
        map_problems=tuple(MISSING_TEXTS[reason] for reason in OF_THE_INDEX if reason in missing),
    )


def _mapped_slice(view: SliceView, sizes: Mapping[str, tuple[int, int]]) -> SliceView:
    if not view.answer.maps:
        return view
    pictures = view.answer.pictures
    size = (pictures.windowed.shape[1], pictures.windowed.shape[0]) if pictures else None
    return dataclasses.replace(
        view,
        pairs=pair_views(view.answer, size, sizes),
        picture_id=f"{view.anchor}-picture" if view.picture else None,
    )


def _pictured_neighbors(studies: Iterable[StudyView]) -> Iterable[Neighbor]:
    for study in studies:
        for view in study.slices:
            yield from view.shown
            yield from view.pictured


def _labels(result: QueryResult) -> Iterable[str]:
    for study in result.studies:
        yield from (entry.label for entry in study.labels)
        yield from (case.label for case in study.cases)
        for answer in study.slices:
            yield from (neighbor.label for neighbor in answer.neighbors)


def _position(position_mm: float | None) -> str:
    if position_mm is None:
        return "position unknown"
    return f"{position_mm:.1f} mm".replace("-", "\N{MINUS SIGN}")


def _score(score: float) -> str:
    return f"{score:.3f}".replace("-", "\N{MINUS SIGN}")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _small(value: float) -> str:
    """Two digits that count: a scale's end may be 0.2 or 0.0031."""
    return f"{value:.2g}"


def _percent(share: float) -> str:
    percent = 100 * share
    return "<1\N{NO-BREAK SPACE}%" if 0 < percent < 0.5 else f"{percent:.0f}\N{NO-BREAK SPACE}%"


def _bar(share: float) -> str:
    """CSS length of a bar: a share of its track, cut to what a track can show."""
    return f"{100 * min(1.0, max(0.0, share)):.1f}%"


FILTERS: dict[str, Callable[..., Any]] = {
    "position": _position,
    "score": _score,
    "signed": _signed,
    "small": _small,
    "percent": _percent,
    "bar": _bar,
    "duration": format_duration,
    "count": count_noun,
}
"""Formatting the template uses; each takes a number and gives text."""
