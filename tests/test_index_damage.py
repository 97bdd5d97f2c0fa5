"""Damaged and hostile files of an index; manifests and items have files of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ildsdk.errors import IndexFileError
from ildsdk.index import Index, verify_index
from ildsdk.index.array_writing import write_arrays
from ildsdk.index.arrays import map_arrays
from tests.index_damaging import bless, index_path, pristine, rewrite
from tests.index_factory import unit_embeddings

__all__ = ["index_path", "pristine"]  # fixtures

FILES = (
    "manifest.json", "manifest.copy.json", "hyperplanes.safetensors",
    "arrays-000002.safetensors", "arrays-000003.safetensors",
    "columns-000002.safetensors", "columns-000003.safetensors",
    "items-000002.sqlite", "items-000003.sqlite", "removed-000004.safetensors",
    "maps-000002.safetensors", "maps-000003.safetensors",
)  # fmt: skip


def test_the_list_of_files_is_complete(pristine: Path) -> None:
    assert sorted(path.name for path in pristine.iterdir()) == sorted(FILES)
    assert verify_index(pristine).is_intact
    assert verify_index(pristine).n_files == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_found(index_path: Path, name: str) -> None:
    content = (index_path / name).read_bytes()
    generator = np.random.default_rng(len(name))
    n_places = min(60, len(content))
    places = {0, len(content) - 1, *generator.choice(len(content), n_places, replace=False)}
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(generator.integers(8))
        (index_path / name).write_bytes(damaged)
        report = verify_index(index_path, engine="numpy")
        assert not report.is_intact, f"byte {place} of {name}"
        assert name in report.problems[0] or "schema" in report.problems[0]
    (index_path / name).write_bytes(content)
    assert verify_index(index_path, engine="numpy").is_intact


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.copy.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_or_missing_file_is_refused_at_opening(
    index_path: Path, name: str, share: float
) -> None:
    content = (index_path / name).read_bytes()
    (index_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(IndexFileError):
        Index.open(index_path)
    assert not verify_index(index_path).is_intact
    (index_path / name).unlink()
    with pytest.raises(IndexFileError, match="missing"):
        Index.open(index_path)
    assert not verify_index(index_path).is_intact


def _save(path: Path, **arrays: np.ndarray) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)


@pytest.mark.parametrize("is_told_at_search", [False, True])
def test_arrays_that_do_not_fit_are_refused_despite_right_checksums(
    index_path: Path, is_told_at_search: bool
) -> None:
    path = index_path / "arrays-000002.safetensors"
    good = unit_embeddings(0, 12)
    signatures = np.zeros((12, 1), np.uint64)
    bad_value = good.copy()
    bad_value[4, 4] = np.nan
    cases = (
        ({"embeddings": good[:11], "signatures": signatures}, "manifest expects"),
        ({"embeddings": good.astype(np.float64), "signatures": signatures}, "manifest expects"),
        ({"embeddings": good}, "manifest expects"),
        ({"embeddings": good, "signatures": signatures, "more": good}, "manifest expects"),
    )
    if is_told_at_search:  # what is in the arrays is looked at in segments of version 1 only
        fields = json.loads((index_path / "manifest.json").read_text())
        fields["segments"][0]["max_norm"] = None
        rewrite(index_path, segments=fields["segments"])
        cases = (
            ({"embeddings": bad_value, "signatures": signatures}, "not finite"),
            ({"embeddings": good * 3, "signatures": signatures}, "norm 3"),
        )
    for arrays, told in cases:
        _save(path, **arrays)
        bless(index_path)
        with (
            pytest.raises(IndexFileError, match=told),
            Index.open(index_path) as index,
        ):
            index.search(good[0], 1)
        assert not verify_index(index_path).is_intact


def test_vectors_that_are_not_those_checked_when_written_are_found(index_path: Path) -> None:
    good = unit_embeddings(0, 12)
    signatures = np.zeros((12, 1), np.uint64)
    for bad, told in ((good * 3, "12 embeddings are not of unit norm"), (good * np.inf, "finite")):
        _save(index_path / "arrays-000002.safetensors", embeddings=bad, signatures=signatures)
        bless(index_path)
        problems = verify_index(index_path).problems
        assert any(told in problem for problem in problems), problems


def test_wrong_signatures_are_found(index_path: Path) -> None:
    with Index.open(index_path) as index:
        embeddings = index.embeddings(np.delete(np.arange(12), 6))
    embeddings = np.insert(embeddings, 6, unit_embeddings(0, 12)[6], axis=0)
    for value, told in ((9, "bits beyond"), (0, None)):
        _save(
            index_path / "arrays-000002.safetensors",
            embeddings=embeddings, signatures=np.full((12, 1), value, np.uint64),
        )  # fmt: skip
        bless(index_path)
        assert "signatures are not those" in verify_index(index_path).problems[0]
        with Index.open(index_path) as index:
            index.search(embeddings[0], 1)
            if told:
                with pytest.raises(IndexFileError, match=told):
                    index.search(embeddings[0], 1, mode="paper")


@pytest.mark.parametrize("kind", ["arrays", "columns"])
def test_a_safetensors_header_that_lies_is_refused(index_path: Path, kind: str) -> None:
    path = index_path / f"{kind}-000002.safetensors"
    content = path.read_bytes()
    n_header = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + n_header]
    lies = (
        b"\xff" * 8 + content[8:],
        (2**21).to_bytes(8, "little") + content[8:] + bytes(2**21),
        content[:8] + header.replace(b"[0,", b"[8,", 1) + content[8 + n_header :],
        content[:8] + header.replace(b'"I32"', b'"F16"').replace(b'"F32"', b'"F16"')
        + content[8 + n_header :],
        content[:8] + b"x" * n_header + content[8 + n_header :],
        content + b"more",
    )  # fmt: skip
    for lie in lies:
        assert lie != content
        path.write_bytes(lie)
        bless(index_path)
        with pytest.raises(IndexFileError, match=f"{kind}-000002"):
            Index.open(index_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("places", 1), ("places", 99), ("places", -2), ("scales", 0.0), ("scales", np.nan),
     ("boxes", np.inf), ("boxes", -1.0), ("locations", 5), ("map_checks", 5)],
)  # fmt: skip
def test_maps_that_are_not_those_written_are_found(
    index_path: Path, name: str, value: float
) -> None:
    file = index_path / "maps-000002.safetensors"
    arrays = {key: array.copy() for key, array in map_arrays(file).items()}
    arrays[name].reshape(-1)[-1 if name == "boxes" else 0] = value
    write_arrays(file, arrays)
    bless(index_path)
    problems = verify_index(index_path).problems
    assert len(problems) == 1
    assert file.name in problems[0]
    row = 10 if name == "boxes" else 0  # the one it was done to
    with Index.open(index_path) as index:
        if value == -2:  # as if it had none
            assert index.location_codes(row) is None
        else:
            with pytest.raises(IndexFileError, match="maps-000002"):
                index.location_codes(row)


def test_maps_of_another_grid_are_refused(index_path: Path) -> None:
    rewrite(index_path, maps={"explain_sha256": "e" * 64, "n_rows": 3, "n_columns": 3})
    with pytest.raises(IndexFileError, match=r"maps-000002\.safetensors holds"):
        Index.open(index_path)


@pytest.mark.parametrize("change", ["number", "ends"])
def test_columns_that_point_nowhere_are_an_index_error(index_path: Path, change: str) -> None:
    path = index_path / "columns-000002.safetensors"
    arrays = {name: array.copy() for name, array in map_arrays(path).items()}
    if change == "number":
        arrays["label"][3] = 40
    else:
        arrays["label.ends"][-1] += 5
    write_arrays(path, arrays)
    bless(index_path)
    with Index.open(index_path) as index, pytest.raises(IndexFileError, match="columns-000002"):
        index.prevalence()
    assert not verify_index(index_path).is_intact


def test_columns_that_contradict_the_items_are_found(index_path: Path) -> None:
    path = index_path / "columns-000002.safetensors"
    intact = {name: array.copy() for name, array in map_arrays(path).items()}
    for name in ("label", "embedding_checks", "item_checks", "thumbnail_checks"):
        arrays = {key: array.copy() for key, array in intact.items()}
        arrays[name][[0, -1]] = arrays[name][[-1, 0]]
        write_arrays(path, arrays)
        bless(index_path)
        (problem,) = verify_index(index_path).problems
        assert name in problem


def test_messages_hold_no_full_path(index_path: Path) -> None:
    (index_path / "arrays-000002.safetensors").unlink()
    with pytest.raises(IndexFileError) as caught:
        Index.open(index_path)
    assert str(index_path.parent) not in str(caught.value)
    with pytest.raises(IndexFileError) as caught:
        Index.open(index_path.parent / "nothing")
    assert str(index_path.parent) not in str(caught.value)
