"""Integer kernels without VNNI: by numbers, and in qemu's form of a CPU that has none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from export.quantization.activations import collect, ranges  # noqa: E402
from export.quantization.qdq import steps_of, tensors_of, to_qdq  # noqa: E402
from export.quantization.saturation import (  # noqa: E402
    _patches,
    measure_saturation,
    saturating_product,
)
from ildsdk import defaults  # noqa: E402
from ildsdk.bundle import Bundle  # noqa: E402
from tests.quantize_factory import SIDE, float_backbone  # noqa: E402

QEMU = shutil.which("qemu-x86_64")
HELPER = Path(__file__).with_name("qemu_session.py")
_TIMEOUT_S = 300


def test_pairs_are_cut_at_16_bits() -> None:
    activations = np.array([[255, 255, 255, 0], [100, 100, 100, 100]], np.uint8)
    weights = np.array([[127, 127, -128, 5], [-127, -127, 1, 1]], np.int8)
    exact, saturated, n_cut = saturating_product(activations, weights)
    assert exact.tolist() == [[64770 - 32640, -64770 + 255], [25400 - 12300, -25400 + 200]]
    assert saturated.tolist() == [[32767 - 32640, -32768 + 255], [25400 - 12300, -25400 + 200]]
    assert n_cut == 2


def test_an_odd_last_value_has_a_pair_of_its_own() -> None:
    activations, weights = np.full((1, 3), 255, np.uint8), np.full((1, 3), 127, np.int8)
    exact, saturated, n_cut = saturating_product(activations, weights)
    assert (int(exact[0, 0]), int(saturated[0, 0]), n_cut) == (3 * 32385, 32767 + 32385, 1)


def test_small_weights_never_saturate() -> None:
    """Weights of 7 bits fit: 2 x 255 x 64 = 32,640."""
    rng = np.random.default_rng(0)
    activations = rng.integers(0, 256, (50, 64)).astype(np.uint8)
    weights = rng.integers(-64, 65, (20, 64)).astype(np.int8)
    exact, saturated, n_cut = saturating_product(activations, weights)
    assert n_cut == 0
    assert np.array_equal(exact, saturated)
    assert np.array_equal(exact, activations.astype(np.int32) @ weights.astype(np.int32).T)


@pytest.mark.parametrize(("stride", "side", "pad"), [(1, 3, 1), (2, 3, 1), (2, 1, 0), (2, 7, 3)])
def test_patches_are_what_a_convolution_sums(stride: int, side: int, pad: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (4, 9, 9)).astype(np.uint8)
    weight = rng.integers(-127, 128, (6, 4, side, side)).astype(np.int8)
    patches = _patches(image, (side, side), (stride, stride), (pad,) * 4, 0)
    exact, _, _ = saturating_product(patches, weight.transpose(0, 2, 3, 1).reshape(6, -1))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(image.astype(np.float64))[None],
        torch.from_numpy(weight.astype(np.float64)), stride=stride, padding=pad,
    )[0]  # fmt: skip
    assert np.array_equal(exact.T.reshape(expected.shape), expected.numpy())


def test_loud_weights_and_bright_images_show_in_the_figures() -> None:
    rng = np.random.default_rng(3)
    quiet = float_backbone(rng)
    image = [rng.random((1, 1, SIDE, SIDE), np.float32)]
    limits = ranges(collect(quiet, tensors_of(steps_of(quiet)), image), "minmax")
    found = {one.name: one for one in measure_saturation(to_qdq(quiet, limits), image)}
    assert set(found) == {"/first", "/branch", "/skip", "/last"}
    assert all(0 <= one.pairs <= one.sums <= 1 for one in found.values())
    for tensor in quiet.graph.initializer:
        if tensor.name == "first.weight":
            flat = np.full(list(tensor.dims), 0.1, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(flat, tensor.name))
    ones = [np.ones((1, 1, SIDE, SIDE), np.float32)]
    limits = ranges(collect(quiet, tensors_of(steps_of(quiet)), ones), "minmax")
    (loud,) = measure_saturation(to_qdq(quiet, limits), ones, ["/first"])
    assert loud.pairs > 0.7  # every pair inside the image: 2 x 255 x 127
    assert loud.error > 0.3


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="needs qemu-x86_64 (Debian package qemu-user)")
def test_without_vnni_the_option_gives_the_bits_of_vnni(tmp_path: Path) -> None:
    """Plain int8 on an AVX2 CPU differs from one with VNNI; the safe variant does not."""
    with open("/proc/cpuinfo") as cpuinfo:
        if not {"avx512_vnni", "avx_vnni"} & set(cpuinfo.read().split()):
            pytest.skip("needs a CPU with VNNI to compare with")
    bundle = Bundle.open(defaults.bundle_path())
    assert bundle.backbone_int8 is not None
    size = bundle.method.input_size
    rng = np.random.default_rng(0)
    # As smooth as CT is: neighbors alike, dark outside.
    coarse = rng.random((1, 1, size // 8, size // 8), np.float32)
    image = coarse.repeat(8, axis=2).repeat(8, axis=3) * 0.8
    image[:, :, : size // 4] = 0
    np.save(tmp_path / "image.npy", image)

    def deep_features(model: Path, *entries: str, cpu: str | None = None) -> np.ndarray:
        before = [] if cpu is None else [str(QEMU), "-cpu", cpu]
        subprocess.run(
            [*before, sys.executable, HELPER, model, tmp_path / "image.npy", tmp_path / "out.npy",
             *entries],
            check=True, capture_output=True, timeout=_TIMEOUT_S,
        )  # fmt: skip
        return np.load(tmp_path / "out.npy")[0].astype(np.float64)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    model = bundle.backbone_int8
    with_vnni = deep_features(model)
    saturated = deep_features(model, cpu="Haswell")
    safe = deep_features(model, "session.x64quantprecision=1", cpu="Haswell")
    exact = deep_features(bundle.backbone)
    print(
        f"cosine to float32: VNNI {cosine(with_vnni, exact):.6f}, AVX2 "
        f"{cosine(saturated, exact):.6f}, AVX2 with the option {cosine(safe, exact):.6f}; largest "
        f"difference to VNNI: AVX2 {np.abs(saturated - with_vnni).max():.4g}, with the option "
        f"{np.abs(safe - with_vnni).max():.4g} (largest value {np.abs(with_vnni).max():.3g})"
    )
    assert not np.array_equal(saturated, with_vnni)
    assert np.array_equal(safe, with_vnni)
