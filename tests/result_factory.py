"""Query results built by hand for report tests: synthetic pictures, no patient, no model."""

from __future__ import annotations

import dataclasses
import functools
import zlib

import numpy as np

from ildsdk.explain import PairMaps, SliceBox, SliceMap
from ildsdk.records import (
    CaseRank,
    LabelStatistic,
    Neighbor,
    Provenance,
    QueryResult,
    SeriesSummary,
    SkippedItem,
    SliceAnswer,
    SlicePictures,
    StudyAnswer,
)
from ildsdk.reports.thumbnail import encode_grey

LABELS = ("ASS-ILD", "DM/RP-ILD", "IPF-ILD", "Normal")
NOTICE = "Research software, not a medical device: not for diagnosis or treatment of patients."


@functools.cache
def draw_chest(seed: int, size: int = 320, disease: float = 0.5) -> SlicePictures:
    """Draw an ellipse body with two speckled lungs; ``disease`` greys their lower rim."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    wobble = generator.normal(0, 0.02, 4)
    body = (x / 0.93) ** 2 + (y / 0.68) ** 2 < 1
    lungs = ((x - 0.42 + wobble[0]) / 0.33) ** 2 + ((y + wobble[1]) / 0.5) ** 2 < 1
    lungs |= ((x + 0.42 + wobble[2]) / 0.33) ** 2 + ((y + wobble[3]) / 0.5) ** 2 < 1
    lungs &= body
    grey = np.where(body, 200.0, 12.0) + generator.normal(0, 6, (size, size))
    speckle = generator.normal(0, 1, (size // 5 + 1, size // 5 + 1)).repeat(5, 0).repeat(5, 1)
    texture = 70 + 22 * speckle[:size, :size] + disease * 90 * np.clip(y + 0.3, 0, 1)
    grey = np.where(lungs, texture, grey)
    inner = lungs.copy()
    inner[1:-1, 1:-1] = lungs[:-2, 1:-1] & lungs[2:, 1:-1] & lungs[1:-1, :-2] & lungs[1:-1, 2:]
    return SlicePictures(
        windowed=np.clip(grey, 0, 255).astype(np.uint8), outline=lungs & ~(inner & lungs)
    )


@functools.cache
def make_thumbnail(item_id: str) -> bytes | None:
    """Stand-in for the index's pictures: one in eleven items has none."""
    number = zlib.crc32(item_id.encode())
    if number % 11 == 0:
        return None
    return encode_grey(draw_chest(number, size=160, disease=(number % 5) / 4).windowed)


def make_neighbor(rank: int, score: float, number: int, **changes: object) -> Neighbor:
    """Neighbor number ``number`` of a made-up index with a case for each 20 slices."""
    neighbor = Neighbor(
        rank=rank,
        score=score,
        item_id=f"case-{number // 20:03d}/1.2.826.0.1.9.{number}",
        case_id=f"case-{number // 20:03d}",
        label=LABELS[(number // 20) % len(LABELS)],
        study_instance_uid=f"1.2.826.0.1.7.{number // 20}",
        series_instance_uid=f"1.2.826.0.1.8.{number // 20}",
        sop_instance_uid=f"1.2.826.0.1.9.{number}",
        position_mm=None if number % 13 == 0 else -300.0 + 10 * (number % 20),
        site="Phantom generator",
        verification="by construction",
    )
    return dataclasses.replace(neighbor, **changes)  # type: ignore[arg-type]


def make_slice(
    number: int, *, top_n: int = 10, seed: int = 0, best: float = 0.95, picture: bool = True
) -> SliceAnswer:
    """One answered slice with ``top_n`` neighbors under ``best``."""
    generator = np.random.default_rng(seed * 1000 + number)
    scores = best - np.sort(generator.gamma(1.5, 0.012, top_n))
    # Most neighbors come from cases of one label, as in a real answer.
    cases = generator.choice(
        [2, 6, 10, 14, 3, 0, 1, 5], top_n, p=[0.35, 0.2, 0.1, 0.1, *[0.0625] * 4]
    )
    items = cases * 20 + (number + generator.integers(0, 3, top_n)) % 20
    neighbors = tuple(
        make_neighbor(rank, float(score), int(item))
        for rank, (score, item) in enumerate(zip(scores, items, strict=True), 1)
    )
    return SliceAnswer(
        source=f"series-2/IM{number:05d}.dcm",
        sop_instance_uid=f"1.2.3.4.5.{seed}.{number}",
        frame=None,
        position_mm=-280.0 + 10 * number,
        lung_area_mm2=9000.0 + 900 * number,
        neighbors=neighbors,
        no_similar_case=best < 0.6,
        timings_ms={
            "decode": 6.1 + number % 3,
            "mask": 5.2,
            "radiomics": 112.4,
            "backbone": 21.7,
            "fusion": 0.9,
            "search": 0.06,
        },
        pictures=draw_chest(seed * 100 + number) if picture else None,
    )


def make_map(picture: SlicePictures, seed: int, strength: float, grid: int = 5) -> SliceMap:
    """A plausible map over the lungs of a picture: one warm spot, a little of both signs around."""
    rows, columns = np.nonzero(picture.outline)
    n_rows, n_columns = picture.outline.shape
    side = 1.08 * max(np.ptp(rows) + 1, np.ptp(columns) + 1)
    box = SliceBox(
        top=((rows.min() + rows.max() + 1) - side) / 2 / n_rows,
        left=((columns.min() + columns.max() + 1) - side) / 2 / n_columns,
        height=side / n_rows,
        width=side / n_columns,
    )
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:grid, :grid]
    row, column = generator.integers(1, grid, 2)
    values = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 1.5)
    values += generator.normal(0, 0.12, values.shape)
    return SliceMap(values=(strength * values).astype(np.float32), box=box)


def with_maps(answer: SliceAnswer, *, strength: float = 0.05, grid: int = 5) -> SliceAnswer:
    """The answer with maps of its first neighbors: one kept, one not, one too weak to draw."""
    assert answer.pictures is not None
    pairs = []
    for neighbor in answer.neighbors[:4]:
        number = zlib.crc32(f"{answer.sop_instance_uid} {neighbor.item_id}".encode())
        other = zlib.crc32(neighbor.item_id.encode())
        drawn = draw_chest(other, size=160, disease=(other % 5) / 4)
        is_missing = neighbor.rank == 3
        factor = 0.01 if neighbor.rank == 4 else 1.0
        pairs.append(
            PairMaps(
                rank=neighbor.rank,
                query=make_map(answer.pictures, number, factor * strength, grid),
                neighbor=None
                if is_missing
                else make_map(drawn, other, 0.6 * factor * strength, grid),
                missing="not-kept" if is_missing else None,
            )
        )
    return dataclasses.replace(answer, maps=tuple(pairs))


def make_mapped_study(**changes: object) -> StudyAnswer:
    """A study whose slices have maps."""
    study = make_study(**changes)  # type: ignore[arg-type]
    return dataclasses.replace(study, slices=tuple(with_maps(one) for one in study.slices))


def make_study(
    *, n_slices: int = 12, seed: int = 0, best: float = 0.95, picture: bool = True
) -> StudyAnswer:
    """One study whose rankings are counted from its slices."""
    slices = tuple(
        make_slice(number, seed=seed, best=best, picture=picture) for number in range(n_slices)
    )
    flat = [neighbor for answer in slices for neighbor in answer.neighbors]
    by_case: dict[str, list[Neighbor]] = {}
    for neighbor in flat:
        by_case.setdefault(neighbor.case_id, []).append(neighbor)
    ranked = sorted(
        by_case.values(), key=lambda found: (-len(found), -max(one.score for one in found))
    )
    cases = tuple(
        CaseRank(
            rank=rank,
            case_id=found[0].case_id,
            label=found[0].label,
            score=best - 0.02 - 0.013 * rank,
            n_slices=min(n_slices, len(found)),
            best_score=max(one.score for one in found),
            site=found[0].site,
            verification=found[0].verification,
        )
        for rank, found in enumerate(ranked, 1)
    )
    labels = tuple(
        LabelStatistic(
            label=label,
            n_neighbors=sum(one.label == label for one in flat),
            share=sum(one.label == label for one in flat) / max(1, len(flat)),
            n_top1_slices=sum(answer.neighbors[0].label == label for answer in slices),
            prevalence=prevalence,
        )
        for label, prevalence in zip(LABELS, (0.22, 0.2, 0.23, 0.35), strict=True)
    )
    is_unlike = best < 0.6
    series = (
        ("1.2.3.4.2", 241, 1.25, 1.25, "B70f", True, "thinnest axial series, lung kernel"),
        ("1.2.3.4.3", 61, 5.0, 5.0, "B40f", False, "thicker than the chosen series"),
        ("1.2.3.4.4", 80, 3.0, 3.0, "B70f", False, "coronal reformat"),
        ("1.2.3.4.5", 1, None, None, None, False, "localizer"),
    )
    names = (
        "series_instance_uid",
        "n_slices",
        "slice_thickness_mm",
        "spacing_mm",
        "kernel",
        "is_chosen",
        "reason",
    )
    skipped = (
        *(
            _skip("slice", number, "not-sampled", "within 10 mm of a slice taken")
            for number in range(120)
        ),
        *(
            _skip("slice", number, "too-little-lung", f"{900 + number} mm2 of lung, 3000 needed")
            for number in range(3)
        ),
        _skip("file", 7, "localizer", "image type holds LOCALIZER"),
    )
    return StudyAnswer(
        study_instance_uid=f"1.2.840.113619.2.55.3.604688119.868.{seed}",
        series=tuple(SeriesSummary(**dict(zip(names, row, strict=True))) for row in series),  # type: ignore[arg-type]
        slices=slices,
        cases=cases,
        labels=labels,
        no_similar_case=is_unlike,
        suggested_label=None if is_unlike or not cases else cases[0].label,
        n_excluded_items=0,
        skipped=skipped,
    )


def make_result(*studies: StudyAnswer, is_synthetic: bool = True, **changes: object) -> QueryResult:
    """A result around ``studies`` (one ordinary study by default)."""
    provenance = Provenance(
        ildsdk_version="0.1.0",
        bundle_name="ildsdk-phantom-resnet50-ffn",
        bundle_hash="9f2c61d0" * 8,
        index_name="phantom-48",
        index_hash="41be77aa" * 8,
        n_items=960,
        n_cases=48,
        provider="CPUExecutionProvider",
        precision="int8",
        n_threads=2,
        radiomics_engine="fast",
        search_mode="exact",
        top_n=10,
        every_mm=10.0,
        exclude_same_patient=True,
        no_match_threshold=0.71,
        is_synthetic=is_synthetic,
        model_is_synthetic=is_synthetic,
        notice=NOTICE,
    )
    result = QueryResult(
        provenance=provenance,
        studies=studies or (make_study(),),
        skipped=(_skip("file", 1, "not-dicom", "no DICOM preamble or header"),),
        timings_ms={"discover": 41.0, "total": 1874.0},
    )
    return dataclasses.replace(result, **changes)  # type: ignore[arg-type]


def make_odd_result() -> QueryResult:
    """Several studies with each edge: long ids, no positions, no neighbors, nothing similar."""
    long_id = "HOSPITAL-ARCHIVE_2019-" + "x7" * 40
    usual = make_study(n_slices=3)
    first = usual.slices[0]
    odd_neighbors = tuple(
        dataclasses.replace(one, case_id=long_id, position_mm=None, site=None, verification=None)
        for one in first.neighbors[:3]
    )
    odd = dataclasses.replace(
        usual,
        slices=(
            dataclasses.replace(first, neighbors=odd_neighbors, position_mm=None, frame=12),
            dataclasses.replace(usual.slices[1], neighbors=(), no_similar_case=True),
            dataclasses.replace(usual.slices[2], pictures=None, source="deep/" * 14 + "IM.dcm"),
        ),
        cases=(dataclasses.replace(usual.cases[0], case_id=long_id, score=-0.04), *usual.cases[1:]),
        n_excluded_items=14,
    )
    empty = dataclasses.replace(
        make_study(n_slices=0, seed=3), cases=(), no_similar_case=True, suggested_label=None
    )
    return make_result(odd, make_study(n_slices=2, seed=2, best=0.55), empty)


def _skip(level: str, number: int, reason: str, detail: str) -> SkippedItem:
    return SkippedItem(
        level=level,  # type: ignore[arg-type]
        source=f"series-2/IM{number:05d}.dcm",
        reason=reason,
        detail=detail,
        series_instance_uid="1.2.3.4.2",
        sop_instance_uid=f"1.2.3.4.6.{number}",
    )
