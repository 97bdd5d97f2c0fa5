"""The embedded bundle and index on real, public CT: what is answered, refused, found again.

No diagnosis of these patients is known: nothing here measures accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ildsdk import IldError, QuerySettings, Retriever
from ildsdk.ingest import CaseRow, build_index
from ildsdk.settings import RuntimeSettings

ALL_SLICES = QuerySettings(every_mm=0)


@pytest.fixture(scope="module")
def retriever() -> Iterator[Retriever]:
    with Retriever.open(provider="cpu") as opened:
        yield opened


@pytest.mark.parametrize("name", ["tcga_luad", "covid19_ny_sbu", "lung_pet_ct_dx", "crlm"])
def test_every_file_is_used_or_listed(shared_data: Path, retriever: Retriever, name: str) -> None:
    folder = shared_data / "dicom" / name
    result = json.loads(retriever.query(folder, ALL_SLICES).to_json())
    used = [answer["source"] for study in result["studies"] for answer in study["slices"]]
    skipped = [item for study in result["studies"] for item in study["skipped"]]
    skipped += result["skipped"]
    assert all(item["reason"] and item["detail"] for item in skipped)
    sources = used + [item["source"] for item in skipped]
    n_files = sum(path.is_file() for path in folder.rglob("*"))
    assert len(sources) == len(set(sources)) == n_files
    for study in result["studies"]:
        for answer in study["slices"]:
            assert len(answer["neighbors"]) == 10


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("covid19_ny_sbu/A056642_coronal_19010107-123.dcm", "reformat"),
        ("covid19_ny_sbu/A056642_sagittal_19010107-137.dcm", "reformat"),
        ("covid19_ny_sbu/A027284_axial_19000925-116.dcm", "no-lung"),
        ("tcga_luad/ID_0051.dcm", "no-lung"),
    ],
)
def test_what_shows_no_axial_lung_is_not_answered(
    shared_data: Path, retriever: Retriever, file: str, reason: str
) -> None:
    with pytest.raises(IldError) as caught:
        retriever.query(shared_data / "dicom" / file)
    assert [item.reason for item in caught.value.skipped] == [reason]


def test_odd_files_end_in_a_result_or_a_typed_error(
    shared_data: Path, retriever: Retriever
) -> None:
    exit_codes = {}
    for folder in ("dicom_odd", "dicom_ts/ctimage"):
        for path in sorted((shared_data / folder).iterdir()):
            try:
                retriever.query(path)
            except IldError as error:
                exit_codes[path.name] = error.exit_code
    assert set(exit_codes.values()) == {3}
    assert len(exit_codes) == 35  # none of them is an axial slice that shows lung


def test_sharp_kernel_slices_find_their_soft_kernel_twins(
    shared_data: Path, retriever: Retriever, tmp_path: Path
) -> None:
    folder = shared_data / "dicom" / "lung_pet_ct_dx"
    (sharp,) = folder.glob("*A0002*B70f*")
    (soft,) = folder.glob("*A0002*B40f*")
    (other,) = folder.glob("*A0001*")
    cases = [
        CaseRow(path=soft, case_id="TWIN", label="unknown"),
        CaseRow(path=other, case_id="OTHER", label="unknown"),
    ]
    cases += [
        CaseRow(path=path, case_id=f"TCGA-{number}", label="unknown")
        for number, path in enumerate(sorted((shared_data / "dicom" / "tcga_luad").iterdir()))
        if path.stem not in ("ID_0006", "ID_0051")  # the twin of 0003, and a slice without lung
    ]
    build_index(
        tmp_path / "index",
        cases,
        retriever.bundle,
        settings=RuntimeSettings(provider="cpu"),
        every_mm=0,
    )
    with Retriever.open(index=tmp_path / "index", provider="cpu") as twins:
        settings = QuerySettings(every_mm=0, exclude_same_patient=False)
        (study,) = twins.query(sharp, settings).studies
    hits = [
        answer.neighbors[0].case_id == "TWIN"
        and answer.neighbors[0].position_mm == pytest.approx(answer.position_mm, abs=0.1)
        for answer in study.slices
    ]
    print(f"rank-1 twins: {sum(hits)} of {len(hits)}")
    assert len(hits) == 6
    assert sum(hits) >= 5
