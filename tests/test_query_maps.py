"""``query --explain`` end to end, on a tiny bundle with maps and a small phantom archive."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ildsdk import ConfigError, IndexFileError, QuerySettings, Retriever
from ildsdk.bundle import Bundle, write_bundle
from ildsdk.cli import main
from ildsdk.encoder import Encoder
from ildsdk.explain import N_MAPPED, map_for
from ildsdk.index import Index, verify_index
from ildsdk.ingest import CaseRow, add_cases, build_index, read_cases_csv
from ildsdk.records import QueryResult
from ildsdk.settings import RuntimeSettings
from ildsdk.study_encoding import iter_study
from tests.archive_factory import PLANTED_ID, PLANTED_NAME, write_query_study, write_small_archive
from tests.bundle_factory import EMBEDDING_SIZE, GRID, write_tiny_bundle

CPU = RuntimeSettings(provider="cpu", n_threads=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a bundle with maps, one without, an index of each, and a query study."""
    folder = tmp_path_factory.mktemp("maps")
    # Radiomics scaled to almost nothing: the picture decides, and maps are not empty.
    bundle = write_tiny_bundle(folder / "bundle", with_maps=True, radiomics_scale=1e9)
    bare = write_tiny_bundle(folder / "bare", radiomics_scale=1e9)
    assert bare.bundle_hash == bundle.bundle_hash
    cases = read_cases_csv(write_small_archive(folder / "archive", ("IPF-ILD", "Normal"), 2))
    assert build_index(folder / "index", cases, bundle, settings=CPU).n_maps == 16
    assert build_index(folder / "no-maps", cases, bare, settings=CPU).n_maps == 0
    write_query_study(folder / "study")
    return folder


def query(
    world: Path, bundle: str = "bundle", index: str | Path = "index", with_maps: bool = True
) -> QueryResult:
    with Retriever.open(world / bundle, world / index, provider="cpu", n_threads=1) as retriever:
        return retriever.query(world / "study", QuerySettings(top_n=6), with_maps=with_maps)


@pytest.fixture(scope="module")
def result(world: Path) -> QueryResult:
    return query(world)


def test_maps_are_those_of_both_slices(world: Path, result: QueryResult) -> None:
    bundle = Bundle.open(world / "bundle")
    encoder = Encoder(bundle, CPU)
    with Retriever.open(world / "bundle", world / "index", provider="cpu") as retriever:
        from ildsdk.dicom import discover

        encoded_of = {
            encoded.ct_slice.sop_instance_uid: encoded
            for folder in (world / "study", *(world / "archive").glob("PHANTOM-*"))
            for study in discover(folder).studies
            for encoded in iter_study(encoder, study, with_locations=True)
        }
        assert len(result.studies[0].slices) == 4
        for answer in result.studies[0].slices:
            query = encoded_of[answer.sop_instance_uid]
            assert [pair.rank for pair in answer.maps] == [1, 2, 3, 4]
            assert len(answer.maps) == N_MAPPED
            for pair, neighbor in zip(answer.maps, answer.neighbors, strict=False):
                other = encoded_of[neighbor.sop_instance_uid]
                direct = map_for(query.locations, other.embedding, query.input_box)
                np.testing.assert_allclose(pair.query.values, direct.values, atol=1e-6)
                assert pair.query.values.shape == (GRID, GRID)
                assert pair.query.box == query.input_box
                back = map_for(other.locations, query.embedding, other.input_box)
                assert pair.missing is None
                bound = np.abs(other.locations).max() / 254 * np.abs(query.embedding).sum() + 1e-6
                assert np.abs(pair.neighbor.values - back.values).max() <= bound
                np.testing.assert_allclose(
                    dataclasses.astuple(pair.neighbor.box),
                    dataclasses.astuple(other.input_box),
                    atol=1e-6,
                )
        assert retriever.index.maps_format.explain_sha256 == bundle.explain_sha256


def test_the_answer_is_the_same_and_the_json_without_maps(world: Path, result: QueryResult) -> None:
    def bare(found: QueryResult) -> dict[str, object]:
        content = found.to_dict()
        assert "maps" not in content["studies"][0]["slices"][0]
        content["timings_ms"] = {}
        for answer in content["studies"][0]["slices"]:
            stages = set(answer.pop("timings_ms"))
            assert (stages >= {"explain", "maps"}) is (found is result)
        return content

    plain = query(world, with_maps=False)
    assert bare(plain) == bare(result)
    assert all(answer.maps == () for answer in plain.studies[0].slices)


def test_a_bundle_without_maps_is_refused_before_the_work(world: Path) -> None:
    with pytest.raises(ConfigError, match="'tiny' has no activation maps"):
        query(world, bundle="bare")


class TestNeighborsWithoutMaps:
    def reasons(self, found: QueryResult) -> set[str | None]:
        pairs = [pair for answer in found.studies[0].slices for pair in answer.maps]
        assert all((pair.neighbor is None) == (pair.missing is not None) for pair in pairs)
        assert all(np.isfinite(pair.query.values).all() for pair in pairs)
        return {pair.missing for pair in pairs}

    def test_of_an_index_that_keeps_none(self, world: Path) -> None:
        assert self.reasons(query(world, index="no-maps")) == {"no-maps-in-index"}

    def test_of_an_index_made_with_another_graph(self, world: Path, tmp_path: Path) -> None:
        other = with_another_graph(world, tmp_path / "other")
        with Retriever.open(other.folder, world / "index", provider="cpu") as retriever:
            found = retriever.query(world / "study", with_maps=True)
        assert self.reasons(found) == {"other-explain-graph"}

    def test_of_slices_added_without(self, world: Path, tmp_path: Path) -> None:
        shutil.copytree(world / "index", tmp_path / "index")
        case = CaseRow(path=world / "study", case_id="NEW", label="IPF-ILD")
        with Index.open(tmp_path / "index") as index:
            report = add_cases(
                index, [case], Bundle.open(world / "bundle"), settings=CPU, with_maps=False
            )
        assert report.n_maps == 0
        with Retriever.open(world / "bundle", tmp_path / "index", provider="cpu") as retriever:
            settings = QuerySettings(exclude_same_patient=False)
            found = retriever.query(world / "study", settings, with_maps=True)
        for answer in found.studies[0].slices:
            assert answer.maps[0].missing == "not-kept"
            assert answer.neighbors[0].sop_instance_uid == answer.sop_instance_uid
        assert self.reasons(found) == {"not-kept", None}

    def test_of_a_damaged_file(self, world: Path, tmp_path: Path) -> None:
        shutil.copytree(world / "index", tmp_path / "index")
        file = tmp_path / "index" / "maps-000002.safetensors"
        content = bytearray(file.read_bytes())
        size = 16 * GRID * GRID * EMBEDDING_SIZE
        content[1000 : size - 1000 : 1000] = bytes(
            byte ^ 1 for byte in content[1000 : size - 1000 : 1000]
        )
        file.write_bytes(content)
        assert not verify_index(tmp_path / "index").is_intact
        assert self.reasons(query(world, index=tmp_path / "index")) == {"damaged"}


def with_another_graph(world: Path, folder: Path) -> Bundle:
    """The bundle with an explain.onnx that says the same in other bytes."""
    import onnx

    bundle = Bundle.open(world / "bundle")
    model = onnx.load(bundle.explain)
    model.doc_string = "the same in other words"
    onnx.save(model, folder.with_suffix(".onnx"))
    names = (
        "name", "method", "backbone", "fusion", "scaler", "labels", "embedding_size", "gem_p",
        "is_synthetic", "provenance", "figures", "license", "intended_use",
    )  # fmt: skip
    parts = {name: getattr(bundle, name) for name in names}
    other = write_bundle(folder, **parts, explain=folder.with_suffix(".onnx"))
    assert other.bundle_hash == bundle.bundle_hash
    assert other.explain_sha256 != bundle.explain_sha256
    return other


class TestAdding:
    def case(self, world: Path) -> list[CaseRow]:
        return [CaseRow(path=world / "study", case_id="NEW", label="IPF-ILD")]

    def copied(self, world: Path, tmp_path: Path, name: str) -> Index:
        return Index.open(shutil.copytree(world / name, tmp_path / "index"))

    def test_goes_on_as_the_index_is(self, world: Path, tmp_path: Path) -> None:
        bundle = Bundle.open(world / "bundle")
        with self.copied(world, tmp_path, "index") as index:
            assert add_cases(index, self.case(world), bundle, settings=CPU).n_maps == 4
        shutil.rmtree(tmp_path / "index")
        with self.copied(world, tmp_path, "no-maps") as index:
            assert add_cases(index, self.case(world), bundle, settings=CPU).n_maps == 0
            assert index.maps_format is None

    def test_with_another_graph_goes_without_or_is_refused(
        self, world: Path, tmp_path: Path
    ) -> None:
        other = with_another_graph(world, tmp_path / "other")
        with self.copied(world, tmp_path, "index") as index:
            with pytest.raises(IndexFileError, match="do not compare"):
                add_cases(index, self.case(world), other, settings=CPU, with_maps=True)
            assert add_cases(index, self.case(world), other, settings=CPU).n_maps == 0
            assert index.info().n_maps == 16

    def test_maps_of_a_bundle_without_are_refused(self, world: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no activation maps"):
            build_index(
                tmp_path / "index",
                self.case(world),
                Bundle.open(world / "bare"),
                settings=CPU,
                with_maps=True,
            )
        assert not any(tmp_path.iterdir())


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def drawn_however_weak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights tell slices hardly apart: their maps would be left empty."""
    monkeypatch.setattr("ildsdk.reports.map_view.MIN_POSITIVE", 1e-9)


class TestCommandLine:
    def parts(
        self, world: Path, bundle: str = "bundle", index: str = "index"
    ) -> tuple[object, ...]:
        return ("--bundle", world / bundle, "--index", world / index, "--provider", "cpu")

    def test_page_with_maps(self, world: Path, tmp_path: Path, capsys, drawn_however_weak) -> None:
        page = tmp_path / "page.html"
        code, out, err = run(
            "query", world / "study", *self.parts(world), "--explain", "--report", page,
            capsys=capsys,
        )  # fmt: skip
        assert code == 0, err
        text = page.read_text()
        assert text.count('class="map-pair"') == 16
        assert "Maps show what the network reacted to, not where disease is." in text
        assert "its map is strongest" in text
        assert "one scale for both" in text
        assert "15 x 15 places" in text
        plain = run("query", world / "study", *self.parts(world), capsys=capsys)[1]
        words = [line for line in out.splitlines() if " ms" not in line and " s" not in line]
        assert [
            line for line in plain.splitlines() if " ms" not in line and " s" not in line
        ] == words

    def test_without_a_page_or_a_graph(self, world: Path, tmp_path: Path, capsys) -> None:
        code, out, err = run(
            "query", world / "study", *self.parts(world), "--explain", capsys=capsys
        )
        assert (code, out) == (2, "")
        assert "--report" in err
        page = tmp_path / "page.html"
        code, out, err = run(
            "query", world / "study", *self.parts(world, "bare"), "--explain", "--report", page,
            capsys=capsys,
        )  # fmt: skip
        assert (code, out) == (2, "")
        assert "no activation maps" in err
        assert not page.exists()

    def test_an_index_without_maps_is_said_so_once(
        self, world: Path, tmp_path: Path, capsys, drawn_however_weak
    ) -> None:
        page = tmp_path / "page.html"
        code, _, err = run(
            "query", world / "study", *self.parts(world, index="no-maps"), "--explain", "--report",
            page, capsys=capsys,
        )  # fmt: skip
        assert code == 0, err
        assert page.read_text().count("The index keeps no maps") == 1
        assert page.read_text().count("its map is strongest") >= 4  # the query's

    def test_building_says_what_it_keeps(self, world: Path, tmp_path: Path, capsys) -> None:
        cases = world / "archive" / "cases.csv"
        bundle = ("--bundle", world / "bundle", "--provider", "cpu")
        code, out, err = run(
            "index", "build", tmp_path / "a", "--cases", cases, *bundle, "--no-maps", capsys=capsys
        )
        assert code == 0, err
        assert "maps" not in out
        code, out, err = run(
            "index", "build", tmp_path / "b", "--cases", cases, *bundle, capsys=capsys
        )
        assert code == 0, err
        assert "activation maps kept of 16 slices" in out
        info = json.loads(run("index", "info", tmp_path / "b", capsys=capsys)[1])
        assert info["n_maps"] == 16
        code, out, err = run("index", "export", tmp_path / "b", tmp_path / "b.npz", capsys=capsys)
        assert code == 0
        assert "activation maps are not part of the file" in err

    def test_planted_identity_is_nowhere(self, world: Path, tmp_path: Path, capfd) -> None:
        folder = tmp_path / "ZZYZXPLANTED_PATIENT" / PLANTED_ID
        write_query_study(folder)
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.PatientID = PLANTED_ID
            dataset.PatientBirthDate = "19231117"
            dataset.save_as(path)
        table = tmp_path / "cases.csv"
        table.write_text(f"path,case_id,label\n{folder},CASE-1,IPF-ILD\n")
        bundle = ("--bundle", world / "bundle", "--provider", "cpu")
        page, own = tmp_path / "page.html", tmp_path / "index"
        for arguments in (
            ("index", "build", own, "--cases", table, *bundle, "--maps"),
            ("query", folder, "--index", own, *bundle, "--explain", "--report", page,
             "--include-same-patient"),
            ("query", folder, "--index", own, "--bundle", world / "bare", "--explain",
             "--report", page),
            ("query", folder, "--index", own, *bundle, "--explain"),
        ):  # fmt: skip
            with contextlib.suppress(SystemExit):
                main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert "CASE-1" in page.read_text()
        texts = [captured.out, captured.err, page.read_text()]
        assert (own / "maps-000002.safetensors").exists()
        texts += [path.read_bytes().decode("latin-1") for path in own.iterdir()]
        for text in texts:
            for secret in ("ZZYZXPLANTED", PLANTED_NAME, PLANTED_ID, "19231117", str(tmp_path)):
                assert secret.lower() not in text.lower(), secret
