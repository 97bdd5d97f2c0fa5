"""ResNet-50, GeM and ILD-FFN: names, shapes, formulas, gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from export.folding import FoldedBackbone, FoldedFusion  # noqa: E402
from export.models.gem import GeM  # noqa: E402
from export.models.ild_ffn import HalvingBlock, IldFfn, outer_product  # noqa: E402
from export.models.resnet import ResNet50, load_torchvision_weights  # noqa: E402
from ildsdk.errors import ModelError  # noqa: E402

torch.set_num_threads(1)  # two threads on a busy machine wait for each other


def torchvision_resnet50_shapes() -> dict[str, tuple[int, ...]]:
    """Key names and shapes of torchvision's resnet50, from its naming rule."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}

    def norm(prefix: str, n: int) -> None:
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}.{name}"] = (n,)
        shapes[f"{prefix}.num_batches_tracked"] = ()

    norm("bn1", 64)
    n_in = 64
    for stage, (n_blocks, width) in enumerate(
        zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), start=1
    ):
        for block in range(n_blocks):
            prefix = f"layer{stage}.{block}"
            shapes[f"{prefix}.conv1.weight"] = (width, n_in, 1, 1)
            shapes[f"{prefix}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{prefix}.conv3.weight"] = (4 * width, width, 1, 1)
            for number, n in ((1, width), (2, width), (3, 4 * width)):
                norm(f"{prefix}.bn{number}", n)
            if block == 0:
                shapes[f"{prefix}.downsample.0.weight"] = (4 * width, n_in, 1, 1)
                norm(f"{prefix}.downsample.1", 4 * width)
            n_in = 4 * width
    shapes["fc.weight"], shapes["fc.bias"] = (1000, 2048), (1000,)
    return shapes


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.tensor(7)
        if shape == ()
        else torch.rand(shape, generator=generator) * 0.02 + 0.01
        for name, shape in torchvision_resnet50_shapes().items()
    }


def test_torchvision_has_25557032_parameters() -> None:
    counted = sum(
        int(np.prod(shape))
        for name, shape in torchvision_resnet50_shapes().items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    assert counted == 25_557_032  # the published figure of ResNet-50: the rule above is right


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_state_dict_loads_strictly(state, suffix, tmp_path) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    model = ResNet50()
    load_torchvision_weights(model, path)
    loaded = model.state_dict()
    assert sorted(loaded) == sorted(k for k in state if not k.startswith("fc."))
    for name, value in loaded.items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "not-a-file-of-weights"])
def test_state_dict_that_does_not_fit_is_refused(state, fault, tmp_path) -> None:
    if fault == "missing":
        del state["layer3.5.bn2.running_var"]
    elif fault == "extra":
        state["layer5.0.conv1.weight"] = torch.zeros(1)
    elif fault == "shape":
        state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    path = tmp_path / "w.pth"
    torch.save(state, path)
    if fault == "not-a-file-of-weights":
        path.write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"w\.pth"):
        load_torchvision_weights(ResNet50(), path)


def test_gem_is_equation_1() -> None:
    x = np.random.default_rng(0).random((2, 5, 3, 4))
    for p in (1.0, 3.0, 4.5):
        expected = ((x**p).sum(axis=(2, 3)) / 12) ** (1 / p)
        found = GeM(p)(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_gem_of_a_dead_channel_has_finite_value_and_gradient() -> None:
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    pooled = GeM(3.0)(x)
    pooled.sum().backward()
    assert 0 < pooled.item() <= 1e-5
    assert torch.isfinite(x.grad).all()


def test_backbone_shapes() -> None:
    model = ResNet50().eval()
    with torch.inference_mode():
        assert model.feature_map(torch.rand(2, 1, 64, 64)).shape == (2, 2048, 2, 2)
        assert model(torch.rand(2, 1, 96, 96)).shape == (2, 2048)


def test_outer_product_is_equation_2() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3, 6)), rng.normal(size=(3, 4))
    z = outer_product(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    assert z.shape == (3, 1, 6, 4)
    for b in range(3):
        for i in range(6):
            for j in range(4):
                assert z[b, 0, i, j] == x[b, i] * y[b, j]


@pytest.mark.parametrize(("h", "w"), [(16, 16), (17, 13), (51, 25), (9, 8)])
def test_halving_block_halves_downwards(h, w) -> None:
    block = HalvingBlock(1, 3).eval()
    assert block(torch.rand(2, 1, h, w)).shape == (2, 3, h // 2, w // 2)


@pytest.mark.parametrize(("q", "p"), [(2048, 102), (64, 102), (30, 19)])
def test_ild_ffn_shapes_and_unit_norm(q, p) -> None:
    model = IldFfn(q, p, 32).eval()
    x, y = torch.rand(3, q), torch.randn(3, p)
    with torch.inference_mode():
        assert model.blocks(outer_product(x, y)).shape == (3, 64, q // 8, p // 8)
        assert model.correlation(x, y).shape == (3, (q // 8) * (p // 8))
        found = model(x, y)
    assert model.linear.in_features == q + p + (q // 8) * (p // 8)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)


def test_ild_ffn_concatenates_in_the_order_of_equation_3() -> None:
    model = IldFfn(16, 8, 4).eval()
    x, y = torch.rand(2, 16), torch.randn(2, 8)
    with torch.inference_mode():
        stacked = np.concatenate([x, y, model.correlation(x, y)], axis=1)
        expected = stacked @ model.linear.weight.numpy().T + model.linear.bias.numpy()
        np.testing.assert_allclose(model.fused(x, y).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    backbone, fusion = ResNet50(), IldFfn(2048, 102, 16)
    for module in backbone.modules():  # zero-initialised branches pass no gradient yet
        if hasattr(module, "bn3"):
            torch.nn.init.constant_(module.bn3.weight, 0.5)
    embedding = fusion(backbone(torch.rand(3, 1, 64, 64)), torch.randn(3, 102))
    (embedding * torch.randn_like(embedding)).sum().backward()
    for name, parameter in [*backbone.named_parameters(), *fusion.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_folded_networks_equal_the_trained_ones() -> None:
    torch.manual_seed(0)
    backbone, fusion = ResNet50(), IldFfn(2048, 102, 16)
    for module in [*backbone.modules(), *fusion.modules()]:
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.3, 0.7)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    image, values = torch.rand(2, 1, 64, 64), torch.randn(2, 102)
    with torch.inference_mode():
        deep = backbone.eval()(image)
        folded = FoldedBackbone(backbone)
        assert folded.model.conv1.weight.shape == (64, 1, 7, 7)
        found, feature_map = folded(image)
        torch.testing.assert_close(found, deep, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(feature_map, backbone.feature_map(image), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            FoldedFusion(fusion)(deep, values), fusion.eval()(deep, values), rtol=0, atol=1e-5
        )
    assert backbone.conv1.weight.shape == (64, 3, 7, 7)  # the trained network is left alone
