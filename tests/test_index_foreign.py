"""Exchange files that no export wrote: refused by what is wrong, and nothing left behind."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ildsdk.errors import InputError
from ildsdk.index import verify_index
from ildsdk.index.exchange import export_index, import_index
from native_hash import draw_hyperplanes
from tests.index_factory import make_index

FORMS = (".parquet", ".npz")
Columns = dict[str, Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good exports in both forms, with patient keys."""
    folder = tmp_path_factory.mktemp("exported")
    with make_index(folder / "index", 12, 7) as index:
        for form in FORMS:
            export_index(index, folder / f"keyed{form}", with_patient_keys=True)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def columns_of(path: Path) -> tuple[dict[str, Any], Columns]:
    """Facts and columns of a good Parquet export, to be spoiled."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"ildsdk.index-exchange"])
    return facts, {name: table.column(name).to_pylist() for name in table.column_names}


def write_parquet(path: Path, facts: dict[str, Any], columns: Columns) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "frame": pa.int64(), "thumbnail": pa.binary(), "position_mm": pa.float64(),
        "added_on": pa.date32(),
        "embedding": pa.list_(pa.float32(), 16),
    }  # fmt: skip
    arrays = {
        name: values
        if isinstance(values, pa.Array)
        else pa.array(values, types.get(name, pa.string()))
        for name, values in columns.items()
    }
    planes = base64.b64encode(draw_hyperplanes(1, 3, 16, seed=0).tobytes())
    metadata = {
        "ildsdk.index-exchange": json.dumps(facts),
        "ildsdk.index-exchange.hyperplanes": planes,
    }
    pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), path)


def spoil(name: str, row: int, value: object) -> Callable[[dict[str, Any], Columns], None]:
    def change(_: dict[str, Any], columns: Columns) -> None:
        columns[name][row] = value

    return change


def fact(name: str, value: object) -> Callable[[dict[str, Any], Columns], None]:
    def change(facts: dict[str, Any], _: Columns) -> None:
        facts[name] = value

    return change


def double_embedding(_: dict[str, Any], columns: Columns) -> None:
    columns["embedding"][3] = [2 * value for value in columns["embedding"][3]]


def as_float64(_: dict[str, Any], columns: Columns) -> None:
    import pyarrow as pa

    columns["embedding"] = pa.array(columns["embedding"], pa.list_(pa.float64(), 16))


def as_numbers(_: dict[str, Any], columns: Columns) -> None:
    import pyarrow as pa

    columns["label"] = pa.array(range(19))


SPOILED = {
    "embedding-nan": (spoil("embedding", 3, [float("nan")] * 16), "1 of 19 embedding vectors"),
    "embedding-norm": (double_embedding, "not of unit norm"),
    "embedding-none": (spoil("embedding", 3, None), "missing or has a gap"),
    "embedding-gap": (spoil("embedding", 3, [1.0] + [None] * 15), "missing or has a gap"),
    "embedding-dtype": (as_float64, r"embedding is fixed_size_list<.*double"),
    "label-dtype": (as_numbers, "label is int64, expected string"),
    "item-twice": (spoil("item_id", 3, "1.2.3.4"), "in the list twice"),
    "two-labels": (spoil("label", 3, "other"), "two labels"),
    "label-empty": (spoil("label", 3, ""), "label of row 3 is not a text of 1 to"),
    "label-none": (spoil("label", 3, None), "label of row 3"),
    "label-long": (spoil("label", 3, "x" * 10_001), "label of row 3"),
    "position": (spoil("position_mm", 3, float("inf")), "position_mm of row 3 is not a finite"),
    "key": (spoil("patient_key", 3, "Doe"), "patient_key of row 3 is not 64 hex"),
    "thumbnail": (spoil("thumbnail", 3, b"x" * (2**20 + 1)), "thumbnail of row 3"),
    "column-missing": (lambda _, c: c.pop("site"), "missing: site, unknown: none"),
    "column-unknown": (lambda _, c: c.update(name=[""] * 19), "missing: none, unknown: name"),
    "schema": (fact("schema", "ildsdk.index-exchange/3"), "another schema"),
    "fact-unknown": (fact("more", 1), "unknown keys: more"),
    "fact-missing": (lambda f, _: f.pop("salt"), "missing or unknown keys: salt"),
    "n-items": (fact("n_items", 20), "has 19 rows, its facts say 20"),
    "size": (fact("embedding_size", 17), r"have 192 bytes, expected float32 \(1, 3, 17\)"),
    "size-type": (fact("embedding_size", "16"), "embedding_size that is not a whole"),
    "synthetic": (fact("is_synthetic", 1), "is_synthetic that is not true or false"),
    "threshold": (fact("no_match_threshold", 1.5), "no_match_threshold that is not"),
    "salt": (fact("salt", "zz"), "salt that is not 64"),
    "salt-missing": (fact("salt", None), "though the file has no salt"),
    "tables": (fact("n_tables", 10**9), "n_tables that is not"),
    "name": (fact("name", None), "name that is not text"),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_parquet_file_is_refused(exported: Path, tmp_path: Path, kind: str) -> None:
    change, told = SPOILED[kind]
    facts, columns = columns_of(exported / "keyed.parquet")
    write_parquet(tmp_path / "good.parquet", facts, columns)
    import_index(tmp_path / "good.parquet", tmp_path / "good").close()
    change(facts, columns)
    write_parquet(tmp_path / "bad.parquet", facts, columns)
    with pytest.raises(InputError, match=told) as caught:
        import_index(tmp_path / "bad.parquet", tmp_path / "index")
    assert "'bad.parquet' cannot be imported" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert names_in(tmp_path) == ["bad.parquet", "good", "good.parquet"]


def resave(path: Path, good: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with np.load(good) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


SPOILED_NPZ: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda a: a.pop("site"), "unknown or doubled arrays: site"),
    "unknown": (lambda a: a.update(more=np.zeros(3)), "arrays: more"),
    "pickle": (lambda a: a.update(label=np.array([{}] * 19)), "label"),
    "dtype": (lambda a: a.update(embeddings=a["embeddings"].astype("f8")), "dtype <f8"),
    "byte-order": (lambda a: a.update(embeddings=a["embeddings"].astype(">f4")), "dtype >f4"),
    "bytes": (lambda a: a.update(label=a["label"].astype("S")), "label has dtype"),
    "shape": (lambda a: a.update(label=a["label"][:18]), r"shape \(18,\), expected \(19,\)"),
    "columns-first": (
        lambda a: a.update(embeddings=np.asfortranarray(a["embeddings"])), "no plain header",
    ),
    "nan": (lambda a: a["embeddings"].__setitem__((3, 3), np.nan), "not of unit norm"),
    "no-character": (
        lambda a: a.update(label=np.full(19, 0x7FFFFFFF, np.uint32).view("<U1")), "no character",
    ),
    "half-character": (
        lambda a: a.update(label=np.full(19, 0xD800, np.uint32).view("<U1")), "label of row 0",
    ),
    "offsets": (lambda a: a["thumbnail_offsets"].__setitem__(3, 10**9), "do not rise"),
    "offsets-end": (lambda a: a["thumbnail_offsets"].__setitem__(19, 3), "do not rise"),
    "pictures-more": (
        lambda a: a.update(thumbnail_bytes=np.append(a["thumbnail_bytes"], np.uint8(0))),
        "do not rise",
    ),
    "facts": (lambda a: a.update(facts=np.array("{")), "not JSON"),
    "facts-twice": (lambda a: a.update(facts=np.array(["{}", "{}"])), r"shape \(2,\)"),
    "day": (lambda a: a["added_on"].__setitem__(3, "99999-01-01"), "is not a day"),
    "two-labels": (lambda a: a["label"].__setitem__(3, "other"), "two labels"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILED_NPZ)
def test_a_spoiled_npz_file_is_refused(exported: Path, tmp_path: Path, kind: str) -> None:
    change, told = SPOILED_NPZ[kind]
    resave(tmp_path / "good.npz", exported / "keyed.npz", lambda arrays: None)
    import_index(tmp_path / "good.npz", tmp_path / "good").close()
    resave(tmp_path / "bad.npz", exported / "keyed.npz", change)
    with pytest.raises(InputError, match=told):
        import_index(tmp_path / "bad.npz", tmp_path / "index")
    assert names_in(tmp_path) == ["bad.npz", "good", "good.npz"]


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "content"),
    [
        ("embeddings", (10**12, 16), "<f4", b""),
        ("embeddings", (-19, -16), "<f4", bytes(19 * 16 * 4)),
        ("site", (19,), "<U0", b""),
        ("site", (19,), "O", b""),
    ],
)
def test_an_npz_header_that_lies_is_refused_before_memory_is_taken(
    exported: Path, tmp_path: Path, name: str, shape: tuple[int, ...], dtype: str, content: bytes
) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    with (
        zipfile.ZipFile(exported / "keyed.npz") as good,
        zipfile.ZipFile(tmp_path / "bad.npz", "w") as bad,
    ):
        for entry in good.namelist():
            lie = header.getvalue() + content
            bad.writestr(entry, lie if entry == f"{name}.npy" else good.read(entry))
    with pytest.raises(InputError, match=name):
        import_index(tmp_path / "bad.npz", tmp_path / "index")


@pytest.mark.parametrize("form", FORMS)
def test_damage_anywhere_is_refused_or_harmless(exported: Path, tmp_path: Path, form: str) -> None:
    good = (exported / f"keyed{form}").read_bytes()
    generator = np.random.default_rng(3)
    damaged = tmp_path / f"bad{form}"
    contents: list[bytes] = [good[:n] for n in (0, 1, 10, len(good) // 2, len(good) - 1)]
    for place in generator.choice(len(good), 40, replace=False):
        contents.append(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
    n_refused = 0
    for number, content in enumerate(contents):
        damaged.write_bytes(content)
        try:
            import_index(damaged, tmp_path / f"index-{number}").close()
            assert verify_index(tmp_path / f"index-{number}").is_intact
        except InputError:
            n_refused += 1
            assert not (tmp_path / f"index-{number}").exists()
    assert n_refused >= 10
