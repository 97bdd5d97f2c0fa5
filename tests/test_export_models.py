"""Backbones, GeM and heads: names, shapes, formulas, gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from export.folding import FoldedBackbone, FoldedFusion  # noqa: E402
from export.models.alexnet import AlexNet  # noqa: E402
from export.models.backbone import load_torchvision_weights, make_backbone  # noqa: E402
from export.models.gem import GeM  # noqa: E402
from export.models.ild_ffn import (  # noqa: E402
    HalvingBlock,
    IldFfn,
    convolved_outer_product,
    outer_product,
)
from export.models.projection import Projection  # noqa: E402
from export.models.resnet import ResNet50  # noqa: E402
from export.models.vgg import Vgg16  # noqa: E402
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


def torchvision_vgg16_bn_shapes() -> dict[str, tuple[int, ...]]:
    """Key names and shapes of torchvision's vgg16_bn, from its naming rule."""
    shapes: dict[str, tuple[int, ...]] = {}
    n_in, place = 3, 0
    for width, n_layers in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(n_layers):
            shapes[f"features.{place}.weight"] = (width, n_in, 3, 3)
            shapes[f"features.{place}.bias"] = (width,)
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"features.{place + 1}.{name}"] = (width,)
            shapes[f"features.{place + 1}.num_batches_tracked"] = ()
            n_in, place = width, place + 3  # convolution, norm, ReLU
        place += 1  # max pooling
    for place, (n_out, n_in) in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        shapes[f"classifier.{place}.weight"] = (n_out, n_in)
        shapes[f"classifier.{place}.bias"] = (n_out,)
    return shapes


def torchvision_alexnet_shapes() -> dict[str, tuple[int, ...]]:
    """Key names and shapes of torchvision's alexnet."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (n_out, n_in, side) in {
        0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3),
    }.items():  # fmt: skip
        shapes[f"features.{place}.weight"] = (n_out, n_in, side, side)
        shapes[f"features.{place}.bias"] = (n_out,)
    for place, (n_out, n_in) in {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)}.items():
        shapes[f"classifier.{place}.weight"] = (n_out, n_in)
        shapes[f"classifier.{place}.bias"] = (n_out,)
    return shapes


@pytest.mark.parametrize(
    ("model", "shapes", "n_parameters"),
    [
        # The published figures: the naming rules above are right.
        (Vgg16, torchvision_vgg16_bn_shapes(), 138_365_992),
        (AlexNet, torchvision_alexnet_shapes(), 61_100_840),
    ],
)
def test_torchvision_vgg_and_alexnet_load_strictly(model, shapes, n_parameters, tmp_path) -> None:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    counted = sum(int(np.prod(s)) for name, s in shapes.items() if not name.endswith(buffers))
    assert counted == n_parameters
    generator = torch.Generator().manual_seed(0)
    # The classifier is dropped by name; small stand-ins keep the file small.
    state = {
        name: torch.tensor(7)
        if shape == ()
        else torch.rand((2,) if name.startswith("classifier.") else shape, generator=generator)
        for name, shape in shapes.items()
    }
    path = tmp_path / "w.pth"
    torch.save(state, path)
    network = model()
    load_torchvision_weights(network, path)
    loaded = network.state_dict()
    assert sorted(loaded) == sorted(name for name in shapes if name.startswith("features."))
    for name, value in loaded.items():
        assert torch.equal(value, state[name]), name
    del state["features.0.bias"]
    torch.save(state, path)
    with pytest.raises(ModelError, match=rf"w\.pth are not {model.__name__}"):
        load_torchvision_weights(model(), path)


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


@pytest.mark.parametrize(
    ("name", "n_features", "side_of_map"),
    [("resnet50", 2048, 2), ("vgg16", 512, 4), ("alexnet", 256, 3)],
)
def test_backbone_shapes(name, n_features, side_of_map) -> None:
    model = make_backbone(name).eval()
    assert model.n_features == n_features
    image = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        feature_map = model.feature_map(image)
        assert feature_map.shape == (2, n_features, side_of_map, side_of_map)
        assert feature_map.min() >= 0  # what GeM and the activation maps rely on
        torch.testing.assert_close(model(image), GeM()(feature_map))
        assert model(torch.rand(1, 1, 96, 96)).shape == (1, n_features)


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "alexnet"])
def test_a_randomly_started_backbone_passes_its_signal_on(name) -> None:
    """Two unlike pictures give unlike features of a usual size: training has a start."""
    torch.manual_seed(0)
    model = make_backbone(name).train()  # batch statistics, as in a first step
    images = torch.rand(4, 1, 64, 64)
    images[2:] *= torch.linspace(0, 1, 64)
    with torch.no_grad():
        deep = model(images)
    assert 1e-2 < deep.mean() < 1e2
    assert (deep[:2].mean(dim=0) - deep[2:].mean(dim=0)).abs().max() > 0.05 * deep.mean()


@pytest.mark.parametrize(("q", "p"), [(32, 16), (33, 17), (64, 102), (9, 8)])
def test_the_separated_convolution_is_the_convolution_of_the_outer_product(q, p) -> None:
    torch.manual_seed(0)
    deep = torch.randn(3, q, dtype=torch.float64, requires_grad=True)
    radiomics = torch.randn(3, p, dtype=torch.float64)
    block = HalvingBlock(1, 5).double()
    expected = block.conv(outer_product(deep, radiomics))[:, :, : q // 2, : p // 2]
    found = convolved_outer_product(deep, radiomics, block.conv.weight)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    for target in (deep, block.conv.weight):
        torch.testing.assert_close(
            torch.autograd.grad((found * weight).sum(), target, retain_graph=True)[0],
            torch.autograd.grad((expected * weight).sum(), target, retain_graph=True)[0],
        )


@pytest.mark.parametrize("is_training", [False, True])
def test_correlation_is_the_blocks_on_the_outer_product(is_training) -> None:
    """As the exported graph computes it (export.folding)."""
    torch.manual_seed(0)
    model = IldFfn(40, 19, 8).double().train(is_training)
    deep, radiomics = torch.rand(4, 40).double(), torch.randn(4, 19).double()
    expected = model.merge(model.blocks(outer_product(deep, radiomics))).flatten(1)
    torch.testing.assert_close(model.correlation(deep, radiomics), expected)


def test_projection_is_a_linear_layer_of_unit_length_and_ignores_radiomics() -> None:
    model = Projection(12, 5)
    deep = torch.randn(3, 12)
    with torch.no_grad():
        raw = deep.numpy() @ model.linear.weight.numpy().T + model.linear.bias.numpy()
        expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        np.testing.assert_allclose(model(deep).numpy(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(model(deep, torch.randn(3, 7)), model(deep))


def test_pooling_and_embedding_stay_float32_under_autocast() -> None:
    torch.manual_seed(0)
    backbone, fusion = AlexNet().eval(), IldFfn(256, 16, 8).eval()
    image, values = torch.rand(2, 1, 64, 64), torch.randn(2, 16)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert backbone.feature_map(image).dtype == torch.bfloat16
        deep = backbone(image)
        fused = fusion.fused(deep, values)
        projected = Projection(256, 8).fused(deep)
    assert {deep.dtype, fused.dtype, projected.dtype} == {torch.float32}


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


@pytest.mark.parametrize(("n_deep", "n_radiomics"), [(16, 16), (23, 102), (30, 13), (9, 9)])
def test_folded_fusion_cuts_odd_sizes_as_training_does(n_deep: int, n_radiomics: int) -> None:
    torch.manual_seed(1)
    fusion = IldFfn(n_deep, n_radiomics, 8).eval()
    deep, values = torch.rand(2, n_deep), torch.randn(2, n_radiomics)
    with torch.inference_mode():
        torch.testing.assert_close(
            FoldedFusion(fusion)(deep, values), fusion(deep, values), rtol=0, atol=1e-6
        )
