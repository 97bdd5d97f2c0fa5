"""Location vectors, their maps, 8 bits, and the part of the slice they cover."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.phantom import PhantomSettings, generate_case
from ildsdk.bundle import Bundle
from ildsdk.encoder import EncodedSlice, Encoder
from ildsdk.errors import ConfigError, ModelError
from ildsdk.explain import SliceBox, map_for, quantized
from ildsdk.model_input import input_box, model_input
from ildsdk.records import CtSlice
from ildsdk.settings import MethodSettings, RuntimeSettings
from tests.bundle_factory import GRID, write_explain, write_tiny_bundle

CPU = RuntimeSettings(provider="cpu", n_threads=1)
BOX = SliceBox(top=0.0, left=0.0, height=1.0, width=1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("maps") / "bundle", with_maps=True)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> Encoder:
    return Encoder(bundle, CPU)


def phantom_slices(label: str, seed: int) -> list[CtSlice]:
    case = generate_case(label, seed, PhantomSettings(size=192, n_slices=2))
    return [
        CtSlice(
            pixels_hu=pixels.astype(np.float32),
            pixel_spacing_mm=case.pixel_spacing_mm,
            position_mm=None,
            source="s",
            study_instance_uid="1",
            series_instance_uid="1",
            sop_instance_uid="1",
        )
        for pixels in case.pixels_hu
    ]


@pytest.fixture(scope="module")
def pair(encoder: Encoder) -> tuple[EncodedSlice, EncodedSlice]:
    one, other = phantom_slices("IPF-ILD", 0)[0], phantom_slices("Normal", 1)[0]
    return encoder.encode(one, with_locations=True), encoder.encode(other, with_locations=True)


def unit(seed: int, d: int) -> np.ndarray:
    wide = np.random.default_rng(seed).standard_normal(d)
    return (wide / np.linalg.norm(wide)).astype(np.float32)


class TestEncoding:
    def test_locations_come_with_the_same_embedding(self, encoder: Encoder, pair) -> None:
        plain = encoder.encode(phantom_slices("IPF-ILD", 0)[0])
        assert plain.locations is None
        assert plain.input_box is None
        assert "explain" not in plain.timings_ms
        explained = pair[0]
        assert explained.locations.shape == (GRID, GRID, 16)
        assert explained.locations.dtype == np.float32
        assert "explain" in explained.timings_ms
        np.testing.assert_array_equal(plain.embedding, explained.embedding)

    def test_a_map_is_what_scaling_a_place_does_to_the_cosine(
        self, encoder: Encoder, bundle: Bundle, pair
    ) -> None:
        """Against finite differences through the fusion net, which knows nothing of maps."""
        query, neighbor = pair
        values = map_for(query.locations, neighbor.embedding, query.input_box).values
        image = model_input(
            query.ct_slice.pixels_hu,
            query.ct_slice.pixel_spacing_mm,
            query.lung.lung_mask,
            bundle.method,
        )
        deep, maps = encoder._networks.backbone.run_all(
            ["deep_features", "feature_map"], {"image": image[None]}
        )
        radiomics = bundle.scaler.transform(query.features)[np.newaxis]

        def cosine(deep_features: np.ndarray) -> float:
            inputs = {"deep_features": deep_features.astype(np.float32), "radiomics": radiomics}
            found = encoder._networks.fusion.run_all(["embedding"], inputs)[0][0].astype(np.float64)
            return float(found @ neighbor.embedding / np.linalg.norm(found))

        step = 0.5
        strongest = np.argsort(np.abs(values), axis=None)[-5:]
        for row, column in zip(*np.unravel_index(strongest, values.shape), strict=True):
            part = maps[0, :, row, column] / GRID**2
            measured = (cosine(deep + step * part) - cosine(deep - step * part)) / (2 * step)
            assert values[row, column] == pytest.approx(measured, rel=0.02, abs=2e-6)

    def test_a_bundle_without_maps_says_so(self, tmp_path: Path) -> None:
        bare = Encoder(write_tiny_bundle(tmp_path / "bare"), CPU)
        with pytest.raises(ConfigError, match="no activation maps"):
            bare.check_explain()
        with pytest.raises(ConfigError, match="no activation maps"):
            bare.encode(phantom_slices("Normal", 0)[0], with_locations=True)

    def test_graphs_that_do_not_fit_are_refused(self, tmp_path: Path, bundle: Bundle) -> None:
        weights = onnx.load(bundle.fusion).graph.initializer[0]
        narrow = numpy_helper.from_array(numpy_helper.to_array(weights)[:, :12], "w")
        write_explain(tmp_path / "explain.onnx", narrow)
        shutil.copytree(bundle.folder, tmp_path / "bundle")
        shutil.copyfile(tmp_path / "explain.onnx", tmp_path / "bundle" / "explain.onnx")
        odd = Encoder(_reopened(bundle, tmp_path / "bundle"), CPU)
        with pytest.raises(ModelError, match="'locations' has shape"):
            odd.check_explain()
        model = onnx.load(bundle.backbone)
        del model.graph.output[1]
        onnx.save(model, tmp_path / "bundle" / "backbone.onnx")
        shutil.copyfile(bundle.explain, tmp_path / "bundle" / "explain.onnx")
        odd = Encoder(_reopened(bundle, tmp_path / "bundle"), CPU)
        with pytest.raises(ModelError, match="expected 'feature_map'"):
            odd.check_explain()

    def test_the_self_test_runs_the_maps_too(self, bundle: Bundle, encoder: Encoder) -> None:
        opened = Encoder(bundle, CPU)
        opened.self_test()
        assert opened._networks._explain is not None


def _reopened(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle with other files, unchecked: what is tested is the check of the graphs."""
    import dataclasses

    return dataclasses.replace(bundle, folder=folder)


class TestQuantized:
    @pytest.mark.parametrize("largest", [1e-6, 0.02, 3.0])
    def test_a_map_in_8_bits_stays_within_its_bound(self, largest: float) -> None:
        rng = np.random.default_rng(0)
        locations = rng.standard_normal((5, 5, 128)).astype(np.float32)
        locations *= largest / np.abs(locations).max()
        codes = quantized(locations, BOX)
        assert codes.codes.dtype == np.int8
        assert np.abs(codes.codes).max() == 127
        for seed in range(20):
            target = unit(seed, 128)
            exact = map_for(locations, target, BOX).values
            error = np.abs(codes.map_for(target).values - exact)
            bound = codes.scale / 2 * np.abs(target).sum()
            assert error.max() <= bound * 1.001
            # Of the strongest place; random vectors are the worst case, a step one sees is 2 %.
            assert error.max() < 0.015 * np.abs(exact).max()

    def test_nothing_stays_nothing(self) -> None:
        codes = quantized(np.zeros((2, 3, 4), np.float32), BOX)
        assert codes.scale > 0
        assert not codes.map_for(unit(0, 4)).values.any()


class TestInputBox:
    @pytest.mark.parametrize("spacing", [(0.7, 0.7), (0.5, 1.1)])
    @pytest.mark.parametrize("corner", [(60, 30), (0, 0), (120, 90)])
    def test_a_marker_in_the_input_is_where_the_box_says(self, spacing, corner) -> None:
        settings = MethodSettings(input_size=96, crop_margin=0.1)
        top, left = corner
        mask = np.zeros((200, 160), bool)
        mask[top : top + 80, left : left + 60] = True
        pixels = np.full(mask.shape, -1250, np.float32)
        row, column = top + 17, left + 41
        pixels[row, column] = 250
        image = model_input(pixels, spacing, mask, settings)[0].astype(np.float64)
        y, x = np.mgrid[:96, :96]
        box = input_box(mask, spacing, settings)
        found_y = box.top + box.height * ((image * (y + 0.5)).sum() / image.sum()) / 96
        found_x = box.left + box.width * ((image * (x + 0.5)).sum() / image.sum()) / 96
        # Within a fifth of a model input pixel of the marker's middle.
        assert found_y == pytest.approx((row + 0.5) / 200, abs=0.2 * box.height / 96)
        assert found_x == pytest.approx((column + 0.5) / 160, abs=0.2 * box.width / 96)

    def test_it_is_square_in_mm_and_may_reach_outside(self) -> None:
        mask = np.zeros((100, 100), bool)
        mask[:50, :20] = True
        box = input_box(mask, (1.0, 2.0), MethodSettings(crop_margin=0.04))
        assert box.height * 100 * 1.0 == pytest.approx(54)
        assert box.width * 100 * 2.0 == pytest.approx(54)
        assert box.top == pytest.approx(-0.02)
        assert box.left == pytest.approx(-0.035)


def test_the_float32_run_for_maps_has_a_time_of_its_own(tmp_path: Path) -> None:
    both = write_tiny_bundle(tmp_path / "both", with_int8=True, with_maps=True)
    ct_slice = phantom_slices("IPF-ILD", 0)[0]
    for precision, has_second_run in (("fp32", False), ("int8", True)):
        encoder = Encoder(both, RuntimeSettings(provider="cpu", precision=precision))
        stages = encoder.encode(ct_slice, with_locations=True).timings_ms
        assert ("map_backbone" in stages) == has_second_run
        assert "explain" in stages
        assert "map_backbone" not in encoder.encode(ct_slice).timings_ms
