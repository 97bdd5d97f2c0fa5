"""The int8 export on a tiny network: the QDQ graph, what is chosen, limits that leave no file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
import onnxruntime  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from export.cli import main  # noqa: E402
from export.quantization.activations import collect, ranges  # noqa: E402
from export.quantization.adding import add_int8  # noqa: E402
from export.quantization.agreement import ALL, Agreement  # noqa: E402
from export.quantization.bias_correction import correct_biases  # noqa: E402
from export.quantization.calibration import calibration_images, split_rows  # noqa: E402
from export.quantization.forms import FOR_TENSORRT, check_limits  # noqa: E402
from export.quantization.qdq import (  # noqa: E402
    count_integer_steps,
    scale_and_zero,
    steps_of,
    tensors_of,
    to_qdq,
)
from export.quantization.quantizing import REPORT_NAME, load_report, quantize  # noqa: E402
from export.quantization.report import markdown, write_document  # noqa: E402
from export.quantization.settings import QuantizeSettings  # noqa: E402
from ildsdk.bundle import Bundle  # noqa: E402
from ildsdk.errors import ConfigError, IndexFileError, ModelError  # noqa: E402
from ildsdk.index import Index  # noqa: E402
from tests.quantize_factory import HELD_OUT, SIDE, TRAIN, World, make_world  # noqa: E402

# A network this small has no redundancy to hide rounding in.
SETTINGS = QuantizeSettings(
    methods=("minmax", "percentile-99.9", "mse"), n_calibration=8, n_altered=8, n_correction=8,
    n_sensitivity=4, n_choosing=12, min_top1_label=0.9, min_overlap=0.5, min_cosine=0.98,
    min_median_cosine=0.99, top_n=5, with_symmetric=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "int8"
    quantize(world.bundle, world.slices, world.index, out, SETTINGS)
    return out


def images(world: World, n: int = 6) -> list[np.ndarray]:
    return [world.slices.images[row : row + 1].astype(np.float32) for row in range(n)]


def graph_of(world: World) -> onnx.ModelProto:
    return onnx.load(world.bundle.backbone)


def run(graph: onnx.ModelProto, image: np.ndarray, optimized: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(["feature_map"], {"image": image})[0]


class TestGraph:
    def test_every_step_becomes_an_integer_kernel(self, world: World, tmp_path: Path) -> None:
        model = graph_of(world)
        tensors = tensors_of(steps_of(model))
        graph = to_qdq(model, ranges(collect(model, tensors, images(world)), "minmax"))
        assert count_integer_steps(graph) == {"int8": 4, "float32": 0}
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
        assert kinds.count("QLinearConv") == 4
        assert kinds.count("QLinearAdd") == 1
        assert not {"Conv", "FusedConv", "Add", "Relu", "MaxPool"} & set(kinds)

    def test_it_computes_what_float32_computes(self, world: World) -> None:
        model = graph_of(world)
        limits = ranges(collect(model, tensors_of(steps_of(model)), images(world)), "minmax")
        graph = to_qdq(model, limits)
        for image in images(world, 3):
            expected = run(model, image)
            for optimized in (False, True):
                error = np.abs(run(graph, image, optimized) - expected).max()
                assert 0 < error < 0.05 * expected.max()

    def test_a_step_left_in_float_keeps_its_weights_in_float(self, world: World) -> None:
        model = graph_of(world)
        limits = ranges(collect(model, tensors_of(steps_of(model)), images(world)), "minmax")
        names = [step.name for step in steps_of(model)]
        assert names == ["/first", "/pool", "/branch", "/skip", "/add", "/last"]
        graph = to_qdq(model, limits, ["/last"])
        assert count_integer_steps(graph) == {"int8": 3, "float32": 1}
        all_float = to_qdq(model, limits, names)
        image = images(world, 1)[0]
        assert np.array_equal(run(all_float, image), run(model, image))

    def test_zero_is_a_level_and_the_range_is_covered(self) -> None:
        for low, high in ((0.0, 6.0), (-1.5, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)):
            scale, zero = scale_and_zero((low, high))
            levels = (np.arange(256) - int(zero)) * float(scale)
            assert 0.0 in levels
            assert levels[0] <= min(low, 0) + scale / 2
            assert levels[-1] >= max(high, 0) - scale / 2

    def test_zero_points_of_weights_are_never_shared(self, world: World) -> None:
        """Without VNNI, ONNX Runtime 1.31.1 fails to load a graph that shares them."""
        model = graph_of(world)
        limits = ranges(collect(model, tensors_of(steps_of(model)), images(world)), "minmax")
        weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type == 3}
        zeros = [
            node.input[2]
            for node in to_qdq(model, limits).graph.node
            if node.op_type == "DequantizeLinear" and node.input[0].startswith(tuple(weights))
        ]
        assert len(zeros) == len(set(zeros)) > 0

    def test_corrected_biases_take_the_shift_out(self, world: World) -> None:
        model = graph_of(world)
        seen = collect(model, tensors_of(steps_of(model)), images(world))
        limits = {name: (low, 1.5 * high) for name, (low, high) in ranges(seen, "minmax").items()}
        corrected = correct_biases(model, limits, (), images(world))

        def shift(candidate: onnx.ModelProto) -> float:
            graph = to_qdq(candidate, limits)
            change = [run(graph, image) - run(model, image) for image in images(world)]
            return float(np.abs(np.mean(change, axis=(0, 1, 3, 4))).sum())

        assert shift(corrected) < 0.6 * shift(model)


class TestRanges:
    def test_methods_by_hand(self, world: World) -> None:
        model = graph_of(world)
        seen = collect(model, ("image", "first.relu", "sum"), images(world))
        assert seen["image"].low == 0
        everything = ranges(seen, "minmax")
        values = np.concatenate([image.ravel() for image in images(world)])
        assert everything["image"] == (float(values.min()), float(values.max()))
        low, high = everything["sum"]
        assert low < 0 < high
        share = ranges(seen, "percentile", 90.0)["image"][1]
        assert share == pytest.approx(np.quantile(values, 0.9), abs=float(values.max()) / 1000)
        for method in ("mse", "entropy"):
            for name, (found_low, found_high) in ranges(seen, method).items():
                assert everything[name][0] <= found_low <= 0 or name == "image"
                assert 0 < found_high <= everything[name][1]

    def test_mse_cuts_off_a_lonely_outlier(self) -> None:
        from export.quantization.activations import Distribution

        counts = np.zeros(4096, np.int64)
        counts[:1024] = 10_000
        counts[-1] = 1
        alone = {"x": Distribution(0.0, 4.0, counts)}
        assert ranges(alone, "mse")["x"][1] < 2.0
        assert ranges(alone, "minmax")["x"][1] == 4.0


class TestSplit:
    def test_no_case_stands_in_two_parts(self, world: World) -> None:
        rows = split_rows(world.slices, world.bundle, SETTINGS)
        parts = [
            {world.slices.case_ids[row] for row in part}
            for part in (rows.calibration, rows.choosing, rows.held_out)
        ]
        assert parts[2] == set(HELD_OUT)
        assert parts[0] | parts[1] == set(TRAIN)
        assert not parts[0] & parts[1]
        for part in parts:
            assert {case[0] for case in part} == {"A", "B"}
        assert len(calibration_images(world.slices, rows.calibration, SETTINGS)) == 16

    def test_a_bundle_that_does_not_know_its_cases_is_refused(self, world: World) -> None:
        unknown = dataclasses.replace(world.bundle, provenance={})
        with pytest.raises(ConfigError, match="does not say which cases"):
            split_rows(world.slices, unknown, SETTINGS)
        training = {"train_cases": [*TRAIN, "C-1"], "held_out_cases": HELD_OUT}
        other = dataclasses.replace(world.bundle, provenance={"training": training})
        with pytest.raises(ConfigError, match="lacks 1 of the 13 cases"):
            split_rows(world.slices, other, SETTINGS)


class TestQuantize:
    def test_it_writes_a_graph_that_refers_to_the_backbone(self, made: Path) -> None:
        assert sorted(path.name for path in made.iterdir()) == [
            "backbone-int8-symmetric.onnx", "backbone-int8.onnx", "int8.json",
        ]  # fmt: skip
        for name in ("backbone-int8.onnx", "backbone-int8-symmetric.onnx"):
            graph = onnx.load(made / name, load_external_data=False)
            locations = [
                entry.value
                for tensor in graph.graph.initializer
                for entry in tensor.external_data
                if entry.key == "location"
            ]
            assert locations == ["backbone.onnx"] * 2  # two convolutions are too small for it
        report = json.loads((made / "int8.json").read_text())
        assert report["held_out"][ALL]["n_queries"] == 16
        assert set(report["held_out"]) == {ALL, "A", "B"}
        assert len(report["sensitivities"]) == 6
        assert [one["name"] for one in report["methods"]] == list(SETTINGS.methods)
        assert len(report["saturation"]) == report["convolutions"]["int8"]
        symmetric = report["symmetric"]
        assert set(symmetric["held_out"]) == {ALL, "A", "B"}
        assert symmetric["held_out"] != report["held_out"]
        assert symmetric["bytes"] == (made / "backbone-int8-symmetric.onnx").stat().st_size

    def test_add_int8_keeps_hash_and_parts(self, world: World, made: Path, tmp_path: Path) -> None:
        bundle = add_int8(world.bundle, made, tmp_path / "with-int8")
        assert bundle.bundle_hash == world.bundle.bundle_hash
        assert bundle.default_precision == "int8"
        assert bundle.backbone_int8 is not None
        assert bundle.backbone_int8_symmetric is not None
        symmetric = bundle.int8_agreement["symmetric"]
        assert symmetric["held_out"][ALL]["n_queries"] == 16
        assert bundle.int8_agreement["held_out"][ALL]["n_queries"] == 16
        assert bundle.int8_agreement["limits"]["min_overlap"] == 0.5
        for name in ("backbone.onnx", "fusion.onnx"):
            assert bundle.checksums[name] == world.bundle.checksums[name]
        Index.open(world.index, expected_bundle_hash=bundle.bundle_hash).close()

    @pytest.mark.parametrize(
        ("limit", "message"),
        [
            ("min_top1_label", "best neighbor keeps its class"),
            ("min_overlap", "mean overlap of the first 5 neighbors"),
            ("min_cosine", "least cosine"),
            ("min_median_cosine", "median cosine"),
        ],
    )
    def test_each_limit_is_checked(self, limit: str, message: str) -> None:
        found = Agreement(
            n_queries=3, cosine_min=0.995, cosine_median=0.995, mean_squared_distance=0.01,
            top1_label=0.995, top1_item=0.9, top_n_overlap=0.995,
        )  # fmt: skip
        lenient = dataclasses.replace(SETTINGS, min_top1_label=0.9)
        check_limits({ALL: found}, lenient)
        with pytest.raises(ModelError, match=message):
            check_limits({ALL: found}, dataclasses.replace(lenient, **{limit: 0.999}))
        field = {"min_top1_label": "top1_label", "min_overlap": "top_n_overlap"}.get(
            limit, limit.replace("min_median_cosine", "cosine_median").replace(
                "min_cosine", "cosine_min"
            ),
        )  # fmt: skip
        broken = dataclasses.replace(found, **{field: float("nan")})
        with pytest.raises(ModelError, match=message):
            check_limits({ALL: broken}, lenient)

    def test_a_broken_limit_leaves_no_file(self, world: World, tmp_path: Path) -> None:
        strict = dataclasses.replace(SETTINGS, min_cosine=1.0, max_float_steps=1, methods=("mse",))
        out = tmp_path / "int8"
        with pytest.raises(ModelError, match="Nothing was written"):
            quantize(world.bundle, world.slices, world.index, out, strict)
        assert not out.exists()
        with pytest.raises(ConfigError, match=r"has no int8\.json"):
            load_report(out, world.bundle)

    def test_both_forms_keep_the_limits_or_neither_is_written(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from export.quantization import forms

        def refuses_symmetric(held_out: object, settings: object, form: object) -> None:
            check_limits(held_out, settings, form)
            if form is FOR_TENSORRT:
                raise ModelError("made up")

        monkeypatch.setattr(forms, "check_limits", refuses_symmetric)
        quick = dataclasses.replace(SETTINGS, methods=("mse",))
        out = tmp_path / "int8"
        with pytest.raises(ModelError, match="made up"):
            quantize(world.bundle, world.slices, world.index, out, quick)
        assert not out.exists()
        quick = dataclasses.replace(quick, with_symmetric=False)
        report = quantize(world.bundle, world.slices, world.index, out, quick)
        assert report["symmetric"] is None
        assert not (out / "backbone-int8-symmetric.onnx").exists()
        assert "TensorRT" not in markdown(report)
        bundle = add_int8(world.bundle, out, tmp_path / "bundle")
        assert bundle.backbone_int8_symmetric is None

    def test_an_error_of_the_symmetric_form_says_what_to_do(self) -> None:
        found = Agreement(
            n_queries=3, cosine_min=0.5, cosine_median=1, mean_squared_distance=0.01,
            top1_label=1, top1_item=1, top_n_overlap=1,
        )  # fmt: skip
        with pytest.raises(ModelError, match=r"symmetric int8 and float32 .* \(--no-symmetric\)"):
            check_limits({ALL: found}, SETTINGS, FOR_TENSORRT)

    def test_a_report_of_another_version_is_refused(
        self, world: World, made: Path, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(made, tmp_path / "int8")
        report = json.loads((folder / REPORT_NAME).read_text())
        (folder / REPORT_NAME).write_text(json.dumps({**report, "schema": "export.int8/1"}))
        with pytest.raises(ConfigError, match="made by another version"):
            add_int8(world.bundle, folder, tmp_path / "x")

    def test_parts_that_do_not_belong_together_are_refused(
        self, world: World, made: Path, tmp_path: Path
    ) -> None:
        other = dataclasses.replace(world.bundle, bundle_hash="0" * 64)
        with pytest.raises(ConfigError, match="was made of bundle"):
            add_int8(other, made, tmp_path / "x")
        with pytest.raises(IndexFileError):
            quantize(other, world.slices, world.index, tmp_path / "y", SETTINGS)
        method = dataclasses.replace(world.bundle.method, crop_margin=0.1)
        with pytest.raises(ConfigError, match="made with other settings"):
            quantize(
                dataclasses.replace(world.bundle, method=method), world.slices, world.index,
                tmp_path / "z", SETTINGS,
            )  # fmt: skip
        assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("best",)}, "calibration is 'best'"),
        ({"methods": ("percentile-x",)}, "percentile-P"),
        ({"methods": ()}, "no calibration method"),
        ({"min_overlap": 1.5}, "expected 0 to 1"),
        ({"n_choosing": 0}, "at least 1"),
    ],
)
def test_settings_check_themselves(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SETTINGS, **changes)


def test_document_is_written_between_its_markers(made: Path, tmp_path: Path) -> None:
    report = json.loads((made / "int8.json").read_text())
    text = markdown(report)
    assert "PHANTOM" in text
    assert "### Real CT" not in text
    assert "## The symmetric form" in text
    for form in (report, report["symmetric"]):
        form["real_ct"] = {"n_studies": 2, **form["held_out"][ALL]}
    before, after = markdown(report).split("### Real CT")
    assert "PHANTOM" in before
    assert "PHANTOM" not in after
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nrest\n")
    write_document(page, report)
    assert page.read_text().startswith("# Title\n<!-- measured: begin -->\nBundle `")
    assert page.read_text().endswith("<!-- measured: end -->\nrest\n")
    page.write_text("no markers")
    with pytest.raises(ConfigError, match="to write between"):
        write_document(page, report)


def test_command_line_ends_in_one_typed_line(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.bundle.folder, tmp_path / "bundle")
    arguments = [str(tmp_path / name) for name in ("bundle", "prepared", "index", "out")]
    done = CliRunner().invoke(main, ["quantize", *arguments])
    assert done.exit_code == 2
    assert "has no table.json" in done.output
    done = CliRunner().invoke(main, ["add-int8", arguments[0], arguments[3], str(tmp_path / "b")])
    assert done.exit_code == 2
    assert Bundle.open(tmp_path / "bundle").method.input_size == SIDE
