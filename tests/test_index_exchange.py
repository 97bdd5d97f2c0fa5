"""Build from arrays, export, import and merge: what goes out comes in, or nothing does."""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ildsdk.defaults import index_path
from ildsdk.errors import ConfigError, IndexFileError, InputError
from ildsdk.index import Index, ItemRecord, make_item_id
from ildsdk.index.building import build_from_arrays
from ildsdk.index.exchange import export_index, import_index
from tests.index_factory import SALT, make_index, make_items, unit_embeddings

FORMS = (".parquet", ".npz")
FACTS = {"name": "made", "bundle_hash": "b" * 64, "is_synthetic": True}


def facts_of(index: Index) -> dict[str, Any]:
    info = dataclasses.asdict(index.info())
    for name in ("revision", "index_hash", "n_segments", "n_bytes", "created_with"):
        del info[name]
    return info


def everything(index: Index) -> list[tuple[object, ...]]:
    rows = index.rows()
    return [
        (item, embedding.tobytes(), index.thumbnail(row), index.added_on()[row])
        for row, item, embedding in zip(
            rows, index.items(rows), index.embeddings(rows), strict=True
        )
    ]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index of two segments and its exports in both forms, with patient keys."""
    folder = tmp_path_factory.mktemp("exported")
    with make_index(folder / "index", 12, 7) as index:
        index.set_calibration(0.625, "by hand")
        for form in FORMS:
            assert export_index(index, folder / f"keyed{form}", with_patient_keys=True) == 19
            assert export_index(index, folder / f"plain{form}") == 19
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_with_patient_keys_is_the_same_index(
    exported: Path, tmp_path: Path, form: str
) -> None:
    with (
        Index.open(exported / "index") as before,
        import_index(exported / f"keyed{form}", tmp_path / "index") as after,
    ):
        assert everything(after) == everything(before)
        assert facts_of(after) == facts_of(before)
        assert after.rows_of_patient("patient-2", None).sum() == 5
        assert after.verify() == []
    assert names_in(tmp_path) == ["index"]


@pytest.mark.parametrize("form", FORMS)
def test_by_default_nothing_of_a_patient_leaves_but_study_and_case(
    exported: Path, tmp_path: Path, form: str
) -> None:
    with (
        Index.open(exported / "index") as before,
        import_index(exported / f"plain{form}", tmp_path / "index", name="other") as after,
    ):
        assert after.items(after.rows()) == [
            dataclasses.replace(item, patient_key=None) for item in before.items(before.rows())
        ]
        assert after.name == "other"
        assert after.salt != before.salt
        keys = {item.patient_key for item in before.items(before.rows())}
    content = decompressed(exported / f"plain{form}")
    for secret in (SALT.hex(), *(key for key in keys if key)):
        for encoding in ("utf-8", "utf-32-le"):
            assert secret.encode(encoding) not in content
            assert secret.encode(encoding) in decompressed(exported / f"keyed{form}") or (
                encoding == "utf-32-le" and form == ".parquet"
            )


def decompressed(path: Path) -> bytes:
    """Every value of an exchange file, uncompressed."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            text = b"".join(archive.read(name) for name in archive.namelist())
        return text + text.decode("utf-32-le", errors="ignore").encode()
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    facts = b"".join(table.schema.metadata.values())
    return facts + b"".join(
        buffer.to_pybytes()
        for column in table.columns
        for chunk in column.chunks
        for buffer in chunk.buffers()
        if buffer is not None
    )


@pytest.mark.parametrize("form", FORMS)
def test_removed_items_are_not_exported(tmp_path: Path, form: str) -> None:
    with make_index(tmp_path / "index", 12, 7) as index:
        index.remove(case_ids=["case-0"], item_ids=["1.2.3.18"])
        kept = everything(index)
        assert export_index(index, tmp_path / f"out{form}", with_patient_keys=True) == 13
    with import_index(tmp_path / f"out{form}", tmp_path / "copy") as copy:
        assert everything(copy) == kept


@pytest.mark.parametrize("form", FORMS)
def test_days_of_adding_go_with_the_keys_only(tmp_path: Path, form: str) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    days = [datetime.date(2020, 1, day) for day in (1, 3, 1)]
    with make_index(tmp_path / "index") as index:
        for number, day in enumerate(days):
            items = make_items(5 * number, 5)
            index.add(unit_embeddings(number, 5), items, [b""] * 5, added_on=day)
        export_index(index, tmp_path / f"keyed{form}", with_patient_keys=True)
        export_index(index, tmp_path / f"plain{form}")
    with import_index(tmp_path / f"keyed{form}", tmp_path / "keyed") as copy:
        assert copy.added_on().tolist() == [day for day in days for _ in range(5)]
        assert copy.info().n_segments == 1
    with import_index(tmp_path / f"plain{form}", tmp_path / "plain") as copy:
        assert copy.added_on().min() >= np.datetime64(today)


@pytest.mark.parametrize("form", FORMS)
def test_years_of_daily_additions_become_one_segment(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One day an item; written in parts, of which the days know nothing."""
    n, first = 400, datetime.date(2019, 1, 1)
    days = [first + datetime.timedelta(days=number) for number in range(n)]
    n_added: list[int] = []
    add = Index.add

    def counting(index: Index, embeddings: np.ndarray, *args: Any, **kwargs: Any) -> Index:
        n_added.append(len(embeddings))
        return add(index, embeddings, *args, **kwargs)

    with make_index(tmp_path / "index") as index:
        index.add(unit_embeddings(0, n), make_items(0, n), [b""] * n, added_on=days)
        kept = everything(index)
        export_index(index, tmp_path / f"out{form}", with_patient_keys=True)
    monkeypatch.setattr(Index, "add", counting)
    with import_index(tmp_path / f"out{form}", tmp_path / "copy") as copy:
        assert everything(copy) == kept
        assert copy.info().n_segments == 1
    assert n_added == [n]
    monkeypatch.setattr("ildsdk.index.iterating.CHUNK_ROWS", 64)
    monkeypatch.setattr("ildsdk.index.npz.CHUNK_ROWS", 64)
    monkeypatch.setattr("ildsdk.index.parquet.CHUNK_ROWS", 64)
    monkeypatch.setattr("ildsdk.index.building._PART_ROWS", 128)
    with import_index(tmp_path / f"out{form}", tmp_path / "again") as copy:
        assert everything(copy) == kept
        assert copy.info().n_segments == 1
        (entry,) = copy._snapshot.manifest.segments
        assert entry.codes is not None
    assert n_added[1:] == [128, 128, 128, 16]
    assert copy.verify() == []


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_index_goes_round(tmp_path: Path, form: str) -> None:
    with make_index(tmp_path / "index") as index:
        assert export_index(index, tmp_path / f"out{form}") == 0
        before = facts_of(index)
    with import_index(tmp_path / f"out{form}", tmp_path / "copy") as copy:
        assert facts_of(copy) == before


def test_the_embedded_index_goes_round(tmp_path: Path) -> None:
    with Index.open(index_path()) as before:
        export_index(before, tmp_path / "out.npz", with_patient_keys=True)
        with import_index(tmp_path / "out.npz", tmp_path / "copy") as after:
            assert after.items(after.rows()) == before.items(before.rows())
            assert after.embeddings().tobytes() == before.embeddings().tobytes()
            # Maps stay behind, as the export says.
            assert facts_of(after) == facts_of(before) | {"n_maps": 0, "explain_sha256": None}


def test_facts_of_any_length_the_manifest_allows(tmp_path: Path) -> None:
    with make_index(tmp_path / "index") as index:
        index.set_calibration(0.1, "\x01" * 10_000)
        export_index(index, tmp_path / "out.npz")
    with import_index(tmp_path / "out.npz", tmp_path / "copy", name="\x01" * 10_000) as copy:
        export_index(copy, tmp_path / "again.npz")
    import_index(tmp_path / "again.npz", tmp_path / "again").close()


TEXT = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda text: not text.endswith("\0"))  # fmt: skip


@st.composite
def item_lists(draw: st.DrawFn) -> list[ItemRecord]:
    labels: dict[str, str] = {}
    items = []
    for number in range(draw(st.integers(1, 12))):
        case_id = draw(TEXT)
        uid = f"{number}{draw(TEXT)}"
        frame = draw(st.none() | st.integers(0, 2**63 - 1))
        items.append(
            ItemRecord(
                item_id=make_item_id(uid, frame),
                case_id=case_id,
                label=labels.setdefault(case_id, draw(TEXT)),
                study_instance_uid=draw(st.just("") | TEXT),
                series_instance_uid=draw(st.just("") | TEXT),
                sop_instance_uid=uid,
                frame=frame,
                position_mm=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
                site=draw(st.none() | st.just("") | TEXT),
                verification=draw(st.none() | TEXT),
            )
        )
    return items


@pytest.mark.parametrize("form", FORMS)
@given(
    items=item_lists(),
    d=st.integers(1, 40),
    seed=st.integers(0, 1000),
    pictures=st.lists(st.binary(max_size=40), min_size=12, max_size=12),
    threshold=st.none() | st.floats(-1, 1),
    hashing=st.tuples(st.integers(1, 3), st.integers(1, 64)),
    with_keys=st.booleans(),
)
@settings(
    max_examples=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
def test_any_index_goes_round(
    form: str,
    items: list[ItemRecord],
    d: int,
    seed: int,
    pictures: list[bytes],
    threshold: float | None,
    hashing: tuple[int, int],
    with_keys: bool,
) -> None:
    n = len(items)
    with (
        tempfile.TemporaryDirectory() as folder,
        build_from_arrays(
            Path(folder) / "index", unit_embeddings(seed, n, d), items, name="any",
            bundle_hash="b", is_synthetic=False, thumbnails=pictures[:n],
            patient_hashes=[f"p{i % 3}" if i % 4 else None for i in range(n)],
            no_match_threshold=threshold, threshold_how="drawn",
            n_tables=hashing[0], n_bits=hashing[1], seed=seed,
        ) as before,
    ):  # fmt: skip
        file = Path(folder) / f"out{form}"
        export_index(before, file, with_patient_keys=with_keys)
        with import_index(file, Path(folder) / "copy") as after:
            if with_keys:
                assert everything(after) == everything(before)
                assert facts_of(after) == facts_of(before)
            queries = unit_embeddings(seed + 1, 3, d)
            for mode in ("exact", "paper"):
                ours, theirs = (
                    index.search(queries, 5, mode=mode)  # type: ignore[arg-type]
                    for index in (before, after)
                )
                assert ours.rows.tobytes() == theirs.rows.tobytes()
                assert ours.scores.tobytes() == theirs.scores.tobytes()


def test_parquet_is_written_and_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr("ildsdk.index.iterating.CHUNK_THUMBNAIL_BYTES", 40)
    monkeypatch.setattr("ildsdk.index.building._PART_ROWS", 8)
    with make_index(tmp_path / "index", 20) as index:
        export_index(index, tmp_path / "out.parquet")
        kept = [item.item_id for item in index.items(range(20))]
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 5
    with import_index(tmp_path / "out.parquet", tmp_path / "copy") as copy:
        assert [item.item_id for item in copy.items(range(20))] == kept
        assert copy.info().n_segments == 1  # parts are joined at the end


def test_a_file_or_folder_that_exists_is_not_replaced(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "taken.npz").write_bytes(b"mine")
    with Index.open(exported / "index") as index:
        with pytest.raises(ConfigError, match="exists already"):
            export_index(index, tmp_path / "taken.npz")
        with pytest.raises(ConfigError, match=r"expected \.parquet or \.npz"):
            export_index(index, tmp_path / "out.csv")
    assert (tmp_path / "taken.npz").read_bytes() == b"mine"
    with pytest.raises(ConfigError, match="exists already"):
        import_index(exported / "plain.npz", tmp_path)
    with pytest.raises(ConfigError, match="no file"):
        import_index(tmp_path / "absent.npz", tmp_path / "index")
    assert names_in(tmp_path) == ["taken.npz"]


def test_without_pyarrow_the_extra_is_named(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with Index.open(exported / "index") as index:
        with pytest.raises(ConfigError, match=r"ildsdk\[parquet\]"):
            export_index(index, tmp_path / "out.parquet")
        export_index(index, tmp_path / "out.npz")
    with pytest.raises(ConfigError, match=r"ildsdk\[parquet\]"):
        import_index(exported / "plain.parquet", tmp_path / "index")
    assert names_in(tmp_path) == ["out.npz"]


def test_the_index_package_does_not_load_pyarrow() -> None:
    code = (
        "import sys, ildsdk.index.exchange, ildsdk.index.merging, ildsdk.index.filtering\n"
        "print('pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_npz_needs_no_pickle_and_plain_numpy_reads_it(exported: Path) -> None:
    with np.load(exported / "plain.npz", allow_pickle=False) as arrays:
        assert arrays["embeddings"].shape == (19, 16)
        assert arrays["label"][0] == "ASS-ILD"
        assert json.loads(str(arrays["facts"]))["schema"] == "ildsdk.index-exchange/2"


def test_npz_above_its_limit_is_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ildsdk.index.npz.MAX_NPZ_BYTES", 2000)
    with (
        Index.open(exported / "index") as index,
        pytest.raises(ConfigError, match=r"export to \.parquet"),
    ):
        export_index(index, tmp_path / "out.npz")
    with pytest.raises(InputError, match="expected at most 2000"):
        import_index(exported / "plain.npz", tmp_path / "index")
    assert names_in(tmp_path) == []


def test_disk_full_leaves_nothing(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with Index.open(exported / "index") as index:
        for form in FORMS:
            with pytest.raises(IndexFileError, match="No space left"):
                export_index(index, tmp_path / f"out{form}")
            with pytest.raises(IndexFileError, match="No space left"):
                import_index(exported / f"plain{form}", tmp_path / "index")
    assert names_in(tmp_path) == []
