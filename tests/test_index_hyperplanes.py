"""Hyperplanes handed in: kept by value, carried by exports, taken over by merges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ildsdk.errors import ConfigError, IndexFileError, InputError
from ildsdk.index import (
    Index,
    build_from_arrays,
    export_index,
    import_index,
    merge_indexes,
    repair_index,
    verify_index,
)
from native_hash import draw_hyperplanes
from tests.index_factory import SALT, add_items, make_index, make_items, unit_embeddings

FORMS = (".parquet", ".npz")
EXCHANGE_V1 = Path(__file__).parent / "fixtures" / "exchange-v1"
FACTS: dict[str, Any] = {"bundle_hash": "b" * 64, "is_synthetic": True, "salt": SALT}


def learned(n_tables: int = 2, n_bits: int = 5, d: int = 16) -> npt.NDArray[np.float32]:
    """Hyperplanes that no seed gives."""
    return np.cos(np.arange(n_tables * n_bits * d, dtype=np.float32)).reshape(n_tables, n_bits, d)


def make_learned(path: Path, first: int = 0, n: int = 40, d: int = 16) -> Index:
    index = Index.create(
        path, name="learned", embedding_size=d, hyperplanes=learned(d=d), seed=7, **FACTS
    )
    add_items(index, first, n)
    return index


def answers(index: Index, n_probes: int = 1) -> tuple[bytes, ...]:
    found = index.search(
        unit_embeddings(99, 30, index.embedding_size), 5, mode="paper", n_probes=n_probes
    )
    return found.rows.tobytes(), found.scores.tobytes(), found.n_candidates.tobytes()


def test_they_are_kept_by_value_and_tell_the_counts(tmp_path: Path) -> None:
    with make_learned(tmp_path / "index") as index:
        assert index.hyperplanes.tobytes() == learned().tobytes()
        assert not index.hyperplanes.flags.writeable
        info = index.info()
        assert (info.n_tables, info.n_bits, info.hyperplane_seed) == (2, 5, 7)
        expected = np.einsum("tbd,nd->ntb", learned(), unit_embeddings(0, 40)) > 0
        bits = (expected << np.arange(5)).sum(axis=2)
        (segment,) = index._snapshot.segments
        np.testing.assert_array_equal(segment.array("signatures"), bits)
    assert verify_index(tmp_path / "index").is_intact


@pytest.mark.parametrize(
    ("planes", "told"),
    [
        (learned().astype(np.float64), "float64, expected"),
        (learned()[0], "3 dimensions"),
        (learned(d=15), "embedding_size 16"),
        (learned()[:, :0], "1 to 64 bits"),
        (learned(1, 65), "1 to 64 bits"),
        (np.ones((4097, 1, 16), np.float32), "1 to 4096 tables"),
        (learned() * np.float32(np.nan), "not finite"),
    ],
)
def test_hyperplanes_that_do_not_fit_are_refused(
    tmp_path: Path, planes: npt.NDArray[Any], told: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        Index.create(tmp_path / "index", name="t", embedding_size=16, hyperplanes=planes, **FACTS)
    assert list(tmp_path.iterdir()) == []


def test_counts_and_seeds_out_of_range_are_refused(tmp_path: Path) -> None:
    for wrong in ({"n_tables": 4097}, {"seed": -1}, {"seed": 2**64}, {"n_bits": 65}):
        with pytest.raises(ValueError, match=r"expected|at most|non-negative"):
            Index.create(tmp_path / "index", name="t", embedding_size=16, **wrong, **FACTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", FORMS)
def test_an_export_carries_them_and_paper_answers_stay(tmp_path: Path, form: str) -> None:
    with make_learned(tmp_path / "index") as before:
        export_index(before, tmp_path / f"out{form}", with_patient_keys=True)
        with import_index(tmp_path / f"out{form}", tmp_path / "copy") as after:
            assert after.hyperplanes.tobytes() == before.hyperplanes.tobytes()
            assert after.info().hyperplane_seed == 7
            for n_probes in (1, 2, 9):
                assert answers(after, n_probes) == answers(before, n_probes)
            found = [index._snapshot.segments[0].array("signatures") for index in (before, after)]
            assert found[0].tobytes() == found[1].tobytes()
    assert verify_index(tmp_path / "copy").is_intact
    with np.load(EXCHANGE_V1 / "index.npz") as old:
        assert "hyperplanes" not in old
    if form == ".npz":
        with np.load(tmp_path / "out.npz") as arrays:
            assert arrays["hyperplanes"].tobytes() == learned().tobytes()


@pytest.mark.parametrize("form", FORMS)
def test_files_of_version_1_are_read_and_their_hyperplanes_drawn(tmp_path: Path, form: str) -> None:
    with import_index(EXCHANGE_V1 / f"index{form}", tmp_path / "index") as index:
        assert index.hyperplanes.tobytes() == draw_hyperplanes(2, 4, 16, seed=3).tobytes()
        assert index.embeddings().tobytes() == (
            unit_embeddings(0, 12).tobytes() + unit_embeddings(12, 7).tobytes()
        )
        assert index.added_on().astype(str).tolist() == ["2021-02-03"] * 12 + ["2022-03-04"] * 7
        assert (index.no_match_threshold, index.salt) == (0.625, SALT)
        assert index.info().n_segments == 1


def test_hyperplanes_of_a_foreign_file_are_checked(tmp_path: Path) -> None:
    make_learned(tmp_path / "index").close()
    with Index.open(tmp_path / "index") as index:
        export_index(index, tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as file:
        good = dict(file)

    def schema(number: int) -> npt.NDArray[Any]:
        facts = json.loads(str(good["facts"])) | {"schema": f"ildsdk.index-exchange/{number}"}
        return np.array(json.dumps(facts))

    spoiled = good["hyperplanes"].copy()
    spoiled[0, 0, 0] = np.inf
    for changes, told in (
        ({"hyperplanes": good["hyperplanes"][:1]}, "hyperplanes have 320 bytes"),
        ({"hyperplanes": good["hyperplanes"].reshape(5, 2, 16)}, r"shape \(5, 2, 16\), expected"),
        ({"hyperplanes": good["hyperplanes"].astype("f8")}, "hyperplanes has dtype <f8"),
        ({"hyperplanes": spoiled}, "hyperplanes hold a value that is not finite"),
        ({"facts": schema(1)}, "has hyperplanes though its schema is"),
        ({"facts": schema(3)}, "written by a newer ildsdk"),
    ):
        np.savez(tmp_path / "bad.npz", **{**good, **changes})
        with pytest.raises(InputError, match=told):
            import_index(tmp_path / "bad.npz", tmp_path / "copy")
    del good["hyperplanes"]
    np.savez(tmp_path / "bad.npz", **good)
    with pytest.raises(InputError, match="or lacks them"):
        import_index(tmp_path / "bad.npz", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("planes", "told"), [(b"!!", "not base64"), (b"AAAA", "hyperplanes have 3 bytes")]
)
def test_hyperplanes_of_a_foreign_parquet_file_are_checked(
    tmp_path: Path, planes: bytes, told: str
) -> None:
    import pyarrow.parquet as pq

    from ildsdk.index.parquet import HYPERPLANES_KEY

    with make_learned(tmp_path / "index") as index:
        export_index(index, tmp_path / "good.parquet")
    table = pq.read_table(tmp_path / "good.parquet")
    metadata = {**table.schema.metadata, HYPERPLANES_KEY: planes}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=told):
        import_index(tmp_path / "bad.parquet", tmp_path / "copy")


def test_hash_tables_too_large_for_a_form_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ildsdk.index.parquet._MAX_HYPERPLANE_VALUES", 100)
    monkeypatch.setattr("ildsdk.index.npz.MAX_HYPERPLANE_VALUES", 100)
    with make_learned(tmp_path / "index") as index:
        for form in FORMS:
            with pytest.raises(ConfigError, match="hold 160 values, expected at most 100"):
                export_index(index, tmp_path / f"out{form}")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_build_from_arrays_takes_them(tmp_path: Path) -> None:
    with build_from_arrays(
        tmp_path / "index", unit_embeddings(0, 20), make_items(0, 20), name="made",
        hyperplanes=learned(), **FACTS,
    ) as index:  # fmt: skip
        assert index.hyperplanes.tobytes() == learned().tobytes()


def test_a_merge_takes_the_first_ones_and_hashes_all_items_anew(tmp_path: Path) -> None:
    make_learned(tmp_path / "a", 0, 40).close()
    with make_index(tmp_path / "b") as drawn:
        add_items(drawn, 40, 40)
    whole = make_learned(tmp_path / "whole", 0, 40)
    add_items(whole, 40, 40)
    report = merge_indexes(tmp_path / "merged", [tmp_path / "a", tmp_path / "b"])
    assert report.n_rehashed_sources == 1
    with whole, Index.open(tmp_path / "merged") as merged:
        assert merged.hyperplanes.tobytes() == learned().tobytes()
        assert merged.info().hyperplane_seed == 7
        assert answers(merged) == answers(whole)
    assert verify_index(tmp_path / "merged").is_intact
    assert merge_indexes(tmp_path / "m", [tmp_path / "b", tmp_path / "a"]).n_rehashed_sources == 1


def test_lost_ones_that_no_seed_gives_are_an_error_that_says_so(tmp_path: Path) -> None:
    make_learned(tmp_path / "index").close()
    path = tmp_path / "index" / "hyperplanes.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not verify_index(tmp_path / "index").is_intact
    with pytest.raises(IndexFileError, match="they were handed in"):
        repair_index(tmp_path / "index")
