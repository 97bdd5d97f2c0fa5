"""Location vectors: against autograd, finite differences, Euler's theorem and captum."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from export.explain.locations import Locations, gradient_maps  # noqa: E402
from export.models.gem import GeM, generalized_mean  # noqa: E402
from export.models.ild_ffn import IldFfn  # noqa: E402

torch.set_num_threads(1)
# q, p, d, h, w; the last two leave remainders at every halving.
SIZES = [(32, 16, 8, 3, 4), (16, 102, 5, 2, 2), (43, 27, 4, 3, 3), (13, 15, 4, 1, 2)]


class DoubleGeM(GeM):
    """GeM in the dtype of its input: the trained one computes in float32 whatever comes."""

    def forward(self, feature_map):
        return generalized_mean(feature_map, self.p, self.eps)


def network(q: int, p: int, d: int, seed: int = 0) -> IldFfn:
    torch.manual_seed(seed)
    fusion = IldFfn(q, p, d).double().eval()
    for module in fusion.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.3, 0.7)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return fusion


def slices(q: int, p: int, d: int, h: int, w: int, n: int = 2):
    torch.manual_seed(1)
    feature_map = torch.relu(torch.randn(n, q, h, w, dtype=torch.float64))
    feature_map[:, 3] = 0  # a channel that sees nothing
    targets = torch.nn.functional.normalize(torch.randn(n, d, dtype=torch.float64), dim=1)
    return feature_map, torch.randn(n, p, dtype=torch.float64), targets


def relative(found, expected) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("gem_p", [1.0, 3.0, 4.5])
@pytest.mark.parametrize("size", SIZES)
def test_maps_are_gradient_times_activation_of_the_cosine(size, gem_p) -> None:
    fusion, gem = network(*size[:3]), DoubleGeM(gem_p)
    feature_map, radiomics, targets = slices(*size)
    locations = Locations(fusion, gem).double()(feature_map, radiomics)
    assert locations.shape == (2, size[3] * size[4], size[2])
    maps = (locations @ targets.unsqueeze(2)).squeeze(2)
    assert relative(maps, gradient_maps(fusion, gem, feature_map, radiomics, targets)) < 1e-8


@pytest.mark.parametrize("size", SIZES)
def test_jacobian_of_the_fusion_is_autograds(size) -> None:
    fusion, gem = network(*size[:3]), DoubleGeM()
    feature_map, radiomics, _ = slices(*size, n=1)
    deep = gem(feature_map)
    fused, jacobian = Locations(fusion, gem).double().fused_with_jacobian(deep, radiomics)
    assert relative(fused, fusion.fused(deep, radiomics).detach()) < 1e-12
    expected = torch.autograd.functional.jacobian(lambda x: fusion.fused(x, radiomics)[0], deep)
    assert relative(jacobian[0], expected[:, 0].T) < 1e-8
    # What goes through the convolutions is large enough for the check above to see it.
    through = expected[:, 0] - fusion.linear.weight.detach()[:, : size[0]]
    assert float(through.abs().max() / expected.abs().max()) > 1e-3


def test_locations_move_the_embedding_as_finite_differences_do() -> None:
    size = SIZES[0]
    fusion, gem = network(*size[:3]), DoubleGeM()
    feature_map, radiomics, _ = slices(*size, n=1)
    locations = Locations(fusion, gem).double()(feature_map, radiomics)[0]
    step = 1e-6
    with torch.no_grad():
        for place in range(size[3] * size[4]):
            i, j = divmod(place, size[4])
            ends = []
            for sign in (1, -1):
                moved = feature_map.clone()
                moved[:, :, i, j] *= 1 + sign * step
                ends.append(fusion(gem(moved), radiomics)[0])
            difference = (ends[0] - ends[1]) / (2 * step)
            assert float((locations[place] - difference).abs().max()) < 1e-8


def test_places_add_up_to_what_the_deep_features_move() -> None:
    size = SIZES[0]
    fusion, gem = network(*size[:3]), DoubleGeM()
    feature_map, radiomics, targets = slices(*size)
    module = Locations(fusion, gem).double()
    deep, shares = module.pooled(feature_map)
    seen = torch.arange(size[0]) != 3
    assert relative(shares.sum(dim=2)[:, seen], gem(feature_map)[:, seen]) < 1e-6  # the clamp
    assert float(shares[:, 3].abs().max()) == 0
    leaf = deep.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((fusion(leaf, radiomics) * targets).sum(), leaf)
    total = (module(feature_map, radiomics).sum(dim=1) * targets).sum(dim=1)
    assert relative(total, (gradient * leaf.detach()).sum(dim=1)) < 1e-5


def test_map_for_the_slice_itself_is_zero() -> None:
    """The cosine with itself is at its maximum: no place raises it."""
    size = SIZES[0]
    fusion, gem = network(*size[:3]), DoubleGeM()
    feature_map, radiomics, _ = slices(*size)
    locations = Locations(fusion, gem).double()(feature_map, radiomics)
    own = fusion(gem(feature_map), radiomics).detach()
    assert float((locations @ own.unsqueeze(2)).abs().max()) < 1e-14


def test_maps_agree_with_captum() -> None:
    attr = pytest.importorskip("captum.attr")
    size = SIZES[0]
    fusion, gem = network(*size[:3]), DoubleGeM()
    feature_map, radiomics, targets = slices(*size)

    class Cosine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.ReLU()

        def forward(self, before, radiomics, targets):
            return (fusion(gem(self.last(before)), radiomics) * targets).sum(dim=1)

    model = Cosine()
    found = attr.LayerGradientXActivation(model, model.last).attribute(
        feature_map, additional_forward_args=(radiomics, targets)
    )
    maps = (Locations(fusion, gem).double()(feature_map, radiomics) @ targets.unsqueeze(2))[..., 0]
    assert relative(maps, found.detach().sum(dim=1).flatten(1)) < 1e-8


def test_float32_locations_are_near_those_in_double() -> None:
    size = SIZES[0]
    fusion, gem = network(*size[:3]), DoubleGeM()
    feature_map, radiomics, _ = slices(*size)
    expected = Locations(fusion, gem).double()(feature_map, radiomics)
    found = Locations(fusion.float(), gem)(feature_map.float(), radiomics.float())
    assert found.dtype == torch.float32
    assert relative(found.double(), expected) < 1e-5
    assert np.isfinite(found.numpy()).all()
