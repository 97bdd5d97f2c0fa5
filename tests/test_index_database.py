"""Index: create, add, open, search, items, patients, prevalence, description."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ildsdk.errors import ConfigError, IndexFileError, InputError
from ildsdk.index import Index, ItemRecord, make_item_id, verify_index
from tests.index_factory import LABELS, SALT, add_items, make_index, make_items, unit_embeddings


def test_round_trip_over_segments(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 7, 1, 12) as built:
        kept = built.embeddings(), built.items(range(20)), built.hash
    with Index.open(tmp_path / "index", expected_bundle_hash="b" * 64) as index:
        assert len(index) == 20
        assert index.hash == kept[2]
        assert index.embeddings().tobytes() == kept[0].tobytes()
        assert index.embeddings([8, 7]).tobytes() == kept[0][[8, 7]].tobytes()
        assert index.items(range(20)) == kept[1]
        bare = [ItemRecord(**{**_fields(item), "patient_key": None}) for item in kept[1]]
        assert bare == make_items(0, 20)
        assert [index.thumbnail(row) for row in (0, 7, 19)] == [
            b"picture 0", b"picture 7", b"picture 19",
        ]  # fmt: skip
        assert index.thumbnail_of_item("1.2.3.8") == b"picture 8"
        assert index.thumbnail_of_item("unknown") is None
        assert index.verify() == []
        for row in (-1, 20):
            with pytest.raises(IndexError):
                index.items([row])


def _fields(item: ItemRecord) -> dict[str, object]:
    return {name: getattr(item, name) for name in ItemRecord.__dataclass_fields__}


@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_each_item_finds_itself_and_brute_force_agrees(tmp_path: Path, engine) -> None:
    make_index(tmp_path / "index", 40, 25).close()
    with Index.open(tmp_path / "index", engine=engine) as index:
        matrix = index.embeddings()
        found = index.search(matrix, 10)
        assert found.rows[:, 0].tolist() == list(range(65))
        wide = matrix.astype(np.float64)
        scores = (wide @ wide.T).astype(np.float32)
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        assert np.array_equal(found.rows, expected)
        assert np.allclose(found.scores, np.take_along_axis(scores, expected, 1), atol=1e-7)
        assert found.scores.max() <= 1
        assert found.n_candidates.tolist() == [65] * 65
        one = index.search(matrix[3], 10)
        assert one.rows.tobytes() == found.rows[3:4].tobytes()
        assert one.scores.tobytes() == found.scores[3:4].tobytes()


@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_paper_mode_is_equations_6_to_10(tmp_path: Path, engine) -> None:
    make_index(tmp_path / "index", 300, 200).close()
    with Index.open(tmp_path / "index", engine=engine) as index:
        matrix = index.embeddings()
        generator = np.random.default_rng(0)
        w = generator.standard_normal((1, 3, 16), dtype=np.float32)[0]
        queries = unit_embeddings(99, 30)
        found = index.search(queries, 10, mode="paper")
        for i, q in enumerate(queries):
            h_q = w @ q > 0  # eq. 6
            bucket = [row for row, x in enumerate(matrix) if ((w @ x > 0) == h_q).all()]  # eq. 7
            cosines = [  # eqs. 8 and 9
                float(x @ q / (np.linalg.norm(x) * np.linalg.norm(q))) for x in matrix[bucket]
            ]
            best = [bucket[j] for j in np.argsort(-np.array(cosines), kind="stable")[:10]]  # eq. 10
            assert found.rows[i].tolist() == best + [-1] * (10 - len(best))
            assert found.n_candidates[i] == len(bucket)


def test_paper_mode_with_many_tables_compares_each_row_once(tmp_path: Path) -> None:
    index = Index.create(
        tmp_path / "index", name="t", bundle_hash="b", embedding_size=16, is_synthetic=True,
        n_tables=6, n_bits=2, seed=4,
    )  # fmt: skip
    with index:
        matrix = add_items(index, 0, 200)
        exact, paper = index.search(matrix, 5), index.search(matrix, 5, mode="paper")
        for found in paper.rows:
            assert np.unique(found).size == 5
        assert (paper.n_candidates <= 200).all()
        recall = np.mean(
            [np.isin(a, b).mean() for a, b in zip(exact.rows, paper.rows, strict=True)]
        )
        assert recall > 0.8


def test_excluded_rows_and_padding(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 7, 5) as index:
        excluded = np.ones(12, bool)
        excluded[[2, 9]] = False
        for mode in ("exact", "paper"):
            found = index.search(unit_embeddings(1, 3), 4, mode=mode, excluded_rows=excluded)
            assert set(found.rows.ravel().tolist()) <= {-1, 2, 9}
            assert np.array_equal(found.rows == -1, np.isneginf(found.scores))
            assert np.array_equal((found.rows >= 0).sum(1), np.minimum(found.n_candidates, 4))
        assert index.search(unit_embeddings(1, 3), 4, excluded_rows=excluded).n_candidates[0] == 2


def test_empty_index_answers_with_padding(tmp_path: Path) -> None:
    with make_index(tmp_path / "index") as index:
        for mode in ("exact", "paper"):
            found = index.search(unit_embeddings(1, 2), 3, mode=mode)
            assert (found.rows == -1).all()
        assert index.prevalence() == {}
        assert index.info().n_items == 0
        assert index.verify() == []
        assert index.rows_of_patient("x", "y").shape == (0,)
        assert index.embeddings().shape == (0, 16)


def test_rows_of_patient_by_hash_and_by_study(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 12, 8) as index:
        assert np.flatnonzero(index.rows_of_patient("patient-2", None)).tolist() == [
            10, 11, 12, 13, 14,
        ]  # fmt: skip
        assert np.flatnonzero(index.rows_of_patient(None, "1.9.0")).tolist() == [0, 1, 2, 3, 4]
        assert index.rows_of_patient("patient-0", "1.9.3").sum() == 10
        assert not index.rows_of_patient(None, None).any()
        assert not index.rows_of_patient("", "").any()
        assert not index.rows_of_patient("patient", "1.9").any()


def test_patient_hash_is_stored_salted_only(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 5) as index:
        key = index.items([0])[0].patient_key
    assert key is not None
    assert len(key) == 64
    stored = b"".join(path.read_bytes() for path in (tmp_path / "index").iterdir())
    assert b"patient-0" not in stored
    assert key.encode() in stored
    other = Index.create(
        tmp_path / "other", name="o", bundle_hash="b", embedding_size=16, is_synthetic=True
    )
    add_items(other, 0, 5)
    assert other.items([0])[0].patient_key != key


def test_prevalence_is_of_rows_not_excluded(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 10, 10) as index:
        assert index.prevalence() == dict.fromkeys(sorted(LABELS), 0.25)
        found = index.prevalence(index.rows_of_patient("patient-0", None))
        assert found == {**dict.fromkeys(sorted(LABELS), 1 / 3), LABELS[0]: 0.0}
        assert set(index.prevalence(np.ones(20, bool)).values()) == {0.0}


def test_info_counts(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 10, 15) as index:
        info = index.info()
        assert (info.n_items, info.n_cases, info.n_patients, info.n_segments) == (25, 5, 5, 2)
        assert info.items_by_label == {"ASS-ILD": 10, "DM/RP-ILD": 5, "IPF-ILD": 5, "Normal": 5}
        assert info.cases_by_label == {"ASS-ILD": 2, "DM/RP-ILD": 1, "IPF-ILD": 1, "Normal": 1}
        assert info.items_by_site == {"north": 10}
        on_disk = sum(path.stat().st_size for path in (tmp_path / "index").iterdir())
        assert info.n_bytes == on_disk - 2 * (tmp_path / "index" / "manifest.json").stat().st_size
        assert info.index_hash == index.hash


def test_calibration_is_kept_and_changes_no_content(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 5) as index:
        before = index.hash
        assert index.no_match_threshold is None
        index.set_calibration(0.25, "by hand")
        assert index.no_match_threshold == 0.25
    with Index.open(tmp_path / "index") as index:
        assert (index.no_match_threshold, index.info().threshold_how) == (0.25, "by hand")
        assert index.hash == before
        for bad in (1.5, float("nan")):
            with pytest.raises(ValueError, match="no_match_threshold"):
                index.set_calibration(bad, "")
        add_items(index, 5, 5)
        assert index.no_match_threshold == 0.25
        assert index.hash != before


def test_same_input_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_index(tmp_path / name, 9, 4).close()
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_refused_additions_write_nothing(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 10) as index:
        before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
        new, items, pictures = unit_embeddings(5, 3), make_items(10, 3), [b"x"] * 3
        relabeled = [ItemRecord(**{**_fields(items[0]), "case_id": "case-0", "label": "Normal"})]
        keyed = [ItemRecord(**{**_fields(items[0]), "patient_key": "k"})]
        for arguments, error, told in (
            ((new, make_items(8, 3), pictures), InputError, "2 of 3 slices to add are in the"),
            ((new, [items[0], items[1], items[0]], pictures), InputError, "1 of 3 slices .* twice"),
            ((new[:1], relabeled, pictures[:1]), InputError, "1 cases would have two labels"),
            ((new[:1], keyed, pictures[:1]), ValueError, "patient_hashes"),
            ((new * 2, items, pictures), ValueError, "3 of 3 embedding vectors are not of unit"),
            ((new * np.float32("nan"), items, pictures), ValueError, "unit norm"),
            ((new.astype(np.float64), items, pictures), TypeError, "float32"),
            ((unit_embeddings(5, 3, 8), items, pictures), ValueError, "8 values, the index 16"),
            ((new, items[:2], pictures), ValueError, "2 items"),
            ((new, items, [b"x", b"x", bytes(2**20 + 1)]), ValueError, "1048577 bytes"),
            ((new[:0], [], []), ValueError, "n >= 1"),
        ):
            with pytest.raises(error, match=told):
                index.add(*arguments)
        after = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
        assert before == after


def test_wrong_queries_are_refused(tmp_path: Path) -> None:
    with make_index(tmp_path / "index", 10) as index:
        good = unit_embeddings(1, 2)
        for arguments, options in (
            ((good[:, :8], 3), {}),
            ((good.astype(np.float64), 3), {}),
            ((good * 2, 3), {}),
            ((good * np.float32("nan"), 3), {}),
            ((good, 0), {}),
            ((good, 3), {"mode": "fastest"}),
            ((good, 3), {"recall": 0.0}),
            ((good, 3), {"n_probes": 0}),
            ((good, 3), {"excluded_rows": np.zeros(9, bool)}),
            ((good, 3), {"excluded_rows": np.zeros(10, np.uint8)}),
        ):
            with pytest.raises(ValueError, match=r"expected|not"):
                index.search(*arguments, **options)


def test_create_needs_an_empty_folder(tmp_path: Path) -> None:
    make_index(tmp_path / "index").close()
    with pytest.raises(ConfigError, match="holds an index already"):
        make_index(tmp_path / "index")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="1 files that are no index"):
        make_index(tmp_path / "full")
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_reader_is_not_disturbed_by_a_writer(tmp_path: Path) -> None:
    make_index(tmp_path / "index", 10).close()
    with Index.open(tmp_path / "index") as reader, Index.open(tmp_path / "index") as writer:
        add_items(writer, 10, 10)
        assert (len(reader), len(writer)) == (10, 20)
        assert reader.search(writer.embeddings([15]), 3).rows.max() < 10
        add_items(reader, 20, 5)  # takes in what the other writer added
        assert len(reader) == 25


def test_many_threads_read_as_one(tmp_path: Path) -> None:
    make_index(tmp_path / "index", 60, 40).close()
    queries = unit_embeddings(3, 64)

    def answer(index: Index, i: int) -> tuple[object, ...]:
        found = index.search(queries[i], 5, mode="paper" if i % 2 else "exact")
        rows = found.rows[0][found.rows[0] >= 0]
        return (
            found.rows.tobytes(), found.scores.tobytes(), index.items(rows),
            [index.thumbnail(row) for row in rows],
            index.rows_of_patient(f"patient-{i % 20}", None).tobytes(),
        )  # fmt: skip

    with Index.open(tmp_path / "index") as alone:
        expected = [answer(alone, i) for i in range(64)]
    with Index.open(tmp_path / "index") as shared, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: answer(shared, i), range(64))) == expected


def test_closed_index_says_so(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 5)
    index.items([0])
    index.close()
    for call in (lambda: index.search(unit_embeddings(1, 1), 1), lambda: index.items([0])):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_opening_loads_no_numba_and_no_file_but_the_manifest(tmp_path: Path) -> None:
    make_index(tmp_path / "index", 5).close()
    program = (
        "import sys; from ildsdk.index import Index, ItemRecord\n"
        f"index = Index.open({str(tmp_path / 'index')!r}); index.items([0]); index.prevalence()\n"
        "assert not {'numba', 'torch', 'onnxruntime', 'pydicom', 'scipy'} & set(sys.modules)\n"
        "print(len(index))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "5", done.stderr


def test_item_id_tells_frames_apart() -> None:
    assert make_item_id("1.2") == "1.2"
    assert make_item_id("1.2", 3) == "1.2#3"


def test_salt_must_have_32_bytes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        Index.create(
            tmp_path / "i", name="t", bundle_hash="b", embedding_size=4, is_synthetic=True,
            salt=SALT[:31],
        )  # fmt: skip
    assert not verify_index(tmp_path / "i").is_intact
    with pytest.raises(IndexFileError, match="missing"):
        Index.open(tmp_path / "i")
