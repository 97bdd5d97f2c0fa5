"""``ildsdk build-engine``: typed errors without TensorRT; with a stand-in for it the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from ildsdk import cli
from ildsdk.bundle import Bundle
from ildsdk.cli.build_engine import build_all
from ildsdk.errors import ConfigError, ModelError
from ildsdk.runtime.bundle_engines import engine_requests
from ildsdk.runtime.engine_cache import MANIFEST_NAME, EngineCache
from ildsdk.runtime.provider_libraries import missing_for
from ildsdk.runtime.provider_options import TensorrtOptions
from ildsdk.runtime.tensorrt_engine import EngineRequest
from tests.bundle_factory import write_tiny_bundle
from tests.test_tensorrt_engine import MACHINE, Compiler


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", with_maps=True)


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = 0
    try:
        cli.main(["build-engine", *(str(argument) for argument in arguments)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_without_tensorrt_the_error_names_what_is_missing(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if missing_for("tensorrt") is None:
        pytest.skip("TensorRT loads on this machine")
    folder = tmp_path / "engines"
    for more in ((), ("--precision", "fp16", "--batch-max", 8, "--force")):
        code, out, err = run(
            "--bundle", bundle.folder, "--engine-folder", folder, *more, capsys=capsys
        )
        assert (code, out) == (4, "")
        assert "error (model): execution provider 'tensorrt' cannot run here" in err
        assert "nvinfer" in err
        assert str(tmp_path) not in err
    assert not folder.exists()


def test_int8_needs_a_bundle_that_has_it(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run("--bundle", bundle.folder, "--precision", "int8", capsys=capsys)
    assert code == 2
    assert "has no 8-bit network" in err


def test_every_graph_of_a_bundle_gets_its_engine(bundle: Bundle) -> None:
    requests = engine_requests(bundle, "fp16", batch_max=4, device_id=1)
    assert [(one.model.name, one.precision) for one in requests] == [
        ("backbone.onnx", "fp16"),
        ("fusion.onnx", "fp32"),
        ("explain.onnx", "fp32"),
    ]
    assert {(one.batch_max, one.device_id) for one in requests} == {(4, 1)}


def test_the_8_bit_engine_is_of_the_symmetric_graph(tmp_path: Path) -> None:
    made = write_tiny_bundle(tmp_path / "tiny", with_int8=True, with_symmetric=True)
    assert [(one.model.name, one.precision) for one in engine_requests(made, "int8")] == [
        ("backbone-int8-symmetric.onnx", "int8"),
        ("fusion.onnx", "fp32"),
    ]
    for_cpu = write_tiny_bundle(tmp_path / "for-cpu", with_int8=True)
    with pytest.raises(ConfigError, match=r"backbone-int8-symmetric\.onnx.*add-int8"):
        engine_requests(for_cpu, "int8")


def test_build_again_and_list(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = EngineCache(tmp_path / "engines")
    requests = engine_requests(bundle, "fp16")
    compiler = Compiler()
    build_all(requests, MACHINE, cache, compiler, force=False, quiet=False)
    captured = capsys.readouterr()
    assert [line.split(":")[0] for line in captured.out.splitlines()] == [
        "backbone.onnx",
        "fusion.onnx",
        "explain.onnx",
    ]
    assert captured.out.count("built in 0 s") == 3
    assert "building backbone.onnx fp16 ..." in captured.err
    assert len(compiler.calls) == 3

    build_all(requests, MACHINE, cache, compiler, force=False, quiet=True)
    captured = capsys.readouterr()
    assert captured.out.count("there already") == 3
    assert captured.err == ""
    assert len(compiler.calls) == 3

    code, out, err = run("--list", "--engine-folder", cache.folder, capsys=capsys)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 3
    assert "Test GPU, TensorRT 10.13.2" in out
    assert str(tmp_path) not in out

    manifest = next(cache.folder.glob("fp16-*")) / MANIFEST_NAME
    manifest.write_text("{}")
    code, out, err = run("--list", "--engine-folder", cache.folder, capsys=capsys)
    assert code == 4
    assert len(out.splitlines()) == 2
    assert "is damaged" in err


def test_a_failed_build_is_told_and_later_ones_are_not_begun(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []

    def fails_at_the_second(request: EngineRequest, options: TensorrtOptions) -> None:
        begun.append(request.model.name)
        if len(begun) == 2:
            raise ModelError("out of memory")
        (options.engine_folder / "x.engine").write_bytes(b"x")

    cache = EngineCache(tmp_path / "engines")
    with pytest.raises(ModelError, match="out of memory"):
        build_all(
            engine_requests(bundle, "fp32"),
            MACHINE,
            cache,
            fails_at_the_second,
            force=False,
            quiet=True,
        )
    assert begun == ["backbone.onnx", "fusion.onnx"]
    assert len(cache.scan()[0]) == 1


def test_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("--list", "--engine-folder", tmp_path / "none", capsys=capsys)
    assert (code, out, err) == (0, "", "no engines\n")


def test_a_query_on_tensorrt_without_it(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if missing_for("tensorrt") is None:
        pytest.skip("TensorRT loads on this machine")
    code = 0
    try:
        cli.main(["embed", "--bundle", str(bundle.folder), "--provider", "tensorrt", str(tmp_path)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 4
    assert "'tensorrt' cannot run here" in capsys.readouterr().err
