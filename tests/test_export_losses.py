"""Losses against plain loops; sampler and split properties."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from export.losses import (  # noqa: E402
    contrastive_loss,
    euclidean_distance,
    make_loss,
    supcon_loss,
)
from export.sampling import PairSampler, split_cases  # noqa: E402
from export.train_settings import TrainSettings  # noqa: E402
from ildsdk.errors import ConfigError  # noqa: E402


def test_contrastive_loss_is_equations_4_and_5() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.2, (40, 8)), rng.normal(0, 0.2, (40, 8))
    same = rng.random(40) < 0.4
    expected, n_beyond = 0.0, 0
    for a, b, is_same in zip(first, second, same, strict=True):
        distance = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
        n_beyond += not is_same and distance > 0.7
        if is_same:
            expected += 0.5 * distance**2
        else:
            expected += 0.5 * max(0.0, 0.7 - distance) ** 2
    assert 3 < n_beyond < (~same).sum()  # both sides of the margin are in the sample
    found = contrastive_loss(
        euclidean_distance(torch.from_numpy(first), torch.from_numpy(second)),
        torch.from_numpy(same),
    )
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_contrastive_gradient_is_right_numerically_equal_rows_included() -> None:
    """Row 0 and row 2 of ``first`` equal their partners: same class and different class."""
    torch.manual_seed(0)
    first = (torch.randn(6, 4, dtype=torch.float64) * 0.3).requires_grad_()
    second = (torch.randn(6, 4, dtype=torch.float64) * 0.3).requires_grad_()
    with torch.no_grad():
        second[0], second[2] = first[0], first[2]
    same = torch.tensor([True, False, False, False, True, True])

    # At distance 0 the root of eq. 4 has a corner (different class). Under the root, eps rounds it;
    # with one far above the step of the differences, gradcheck sees the rounded curve.
    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return contrastive_loss(euclidean_distance(a, b, eps=1e-4), same)

    assert torch.autograd.gradcheck(loss, (first, second), eps=1e-7, atol=1e-6)


def test_gradient_of_equal_rows_is_finite_with_the_shipped_eps() -> None:
    twin = torch.ones(2, 3, requires_grad=True)
    loss = contrastive_loss(euclidean_distance(twin, twin.detach()), torch.tensor([True, False]))
    loss.backward()
    assert torch.isfinite(twin.grad).all()


def _unit_rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_pair_loss_is_equation_5_divided_by_the_queries() -> None:
    rows, classes = _unit_rows(5, 3), [0, 0, 1, 1, 0]
    pairs = [(0, 1), (0, 2), (3, 2), (3, 4)]
    expected = 0.0
    for i, j in pairs:
        distance = math.dist(rows[i], rows[j])
        is_same = classes[i] == classes[j]
        expected += 0.5 * (distance**2 if is_same else max(0.0, 0.7 - distance) ** 2)
    found = make_loss(TrainSettings(), 2)(
        torch.from_numpy(rows), torch.tensor(classes), torch.tensor(pairs)
    )
    assert found.item() == pytest.approx(expected / 2, rel=1e-9)  # queries 0 and 3


def test_supcon_is_the_sum_outside_the_logarithm() -> None:
    rows, classes, temperature = _unit_rows(9, 5), [0, 0, 1, 1, 1, 2, 2, 0, 3], 0.2
    anchors = []
    for i in range(9):
        others = [a for a in range(9) if a != i]
        positives = [p for p in others if classes[p] == classes[i]]
        if not positives:
            continue  # the only slice of class 3
        denominator = sum(math.exp(float(rows[i] @ rows[a]) / temperature) for a in others)
        terms = [
            math.log(math.exp(float(rows[i] @ rows[p]) / temperature) / denominator)
            for p in positives
        ]
        anchors.append(-sum(terms) / len(positives))
    assert len(anchors) == 8
    found = supcon_loss(torch.from_numpy(rows), torch.tensor(classes), temperature)
    assert found.item() == pytest.approx(sum(anchors) / 8, rel=1e-9)


def test_supcon_gradient_is_right_numerically() -> None:
    rows = torch.from_numpy(_unit_rows(6, 3)).requires_grad_()
    with torch.no_grad():
        rows[1] = rows[0]
    classes = torch.tensor([0, 0, 1, 1, 2, 0])
    assert torch.autograd.gradcheck(lambda z: supcon_loss(z, classes, 0.5), (rows,))


def test_library_losses_are_their_formulas() -> None:
    """What the names in the settings stand for, whatever the library's defaults become."""
    pytest.importorskip("pytorch_metric_learning")
    rows, classes = _unit_rows(8, 4), [0, 0, 1, 1, 0, 1, 0, 1]
    embeddings, truth = torch.from_numpy(rows).float(), torch.tensor(classes)
    no_pairs = torch.zeros(0, 2, dtype=torch.int64)

    triplet = make_loss(TrainSettings(loss="triplet", margin=0.3), 2)
    costs = []
    for a in range(8):
        for p in range(8):
            for n in range(8):
                if a != p and classes[a] == classes[p] and classes[a] != classes[n]:
                    cost = math.dist(rows[a], rows[p]) - math.dist(rows[a], rows[n]) + 0.3
                    costs += [cost] if cost > 0 else []
    assert triplet(embeddings, truth, no_pairs).item() == pytest.approx(
        sum(costs) / len(costs), rel=1e-4
    )

    anchor = make_loss(TrainSettings(loss="proxy-anchor", embedding_size=4), 2)
    (proxies,) = anchor.parameters()
    unit = torch.nn.functional.normalize(proxies.detach(), dim=1).numpy()
    expected = 0.0
    for c in range(2):
        pull = sum(
            math.exp(-32 * (float(rows[i] @ unit[c]) - 0.1)) for i in range(8) if classes[i] == c
        )
        push = sum(
            math.exp(32 * (float(rows[i] @ unit[c]) + 0.1)) for i in range(8) if classes[i] != c
        )
        expected += math.log1p(pull) / 2 + math.log1p(push) / 2
    assert anchor(embeddings, truth, no_pairs).item() == pytest.approx(expected, rel=1e-4)


def test_a_library_that_is_missing_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_metric_learning", None)
    with pytest.raises(ConfigError, match="pip install pytorch-metric-learning"):
        make_loss(TrainSettings(loss="triplet"), 4)


@pytest.fixture
def sampler() -> PairSampler:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1, 2, 3], [30, 20, 25, 12])
    cases = [f"{c}-{rng.integers(3)}" for c in classes]
    return PairSampler(classes, cases)


def _check_partners(sampler: PairSampler, query: int, positive: int, negatives: list[int]) -> None:
    own = sampler.class_indices[query]
    assert positive != query
    assert sampler.class_indices[positive] == own
    assert [sampler.class_indices[n] for n in negatives] == [c for c in range(4) if c != own]


def test_groups_have_one_positive_and_one_negative_per_other_class(sampler) -> None:
    seen = []
    for query, positive, negatives in sampler.groups(np.random.default_rng(1)):
        _check_partners(sampler, query, positive, negatives)
        assert sampler.case_ids[positive] != sampler.case_ids[query]
        seen.append(query)
    assert sorted(seen) == list(range(87))


def test_group_batches_are_the_groups_with_each_slice_once(sampler) -> None:
    groups = list(sampler.groups(np.random.default_rng(3)))
    batches = list(sampler.group_batches(8, np.random.default_rng(3)))
    assert len(batches) == 11  # 87 queries, 8 at a time
    found = []
    for rows, pairs in batches:
        assert np.unique(rows).size == rows.size
        for group in pairs.reshape(-1, 4, 2):
            query = {int(rows[i]) for i in group[:, 0]}
            assert len(query) == 1
            others = [int(rows[i]) for i in group[:, 1]]
            found.append((query.pop(), others[0], others[1:]))
    assert found == groups


def test_batches_hold_the_same_kind_of_pairs(sampler) -> None:
    shown = []
    for rows, pairs in sampler.batches(4, np.random.default_rng(1)):
        assert np.unique(rows).size == rows.size == 16
        assert np.bincount(sampler.class_indices[rows]).tolist() == [4, 4, 4, 4]
        assert pairs.shape == (16 * 4, 2)
        for query, group in enumerate(pairs.reshape(16, 4, 2)):
            assert (group[:, 0] == query).all()
            others = [int(rows[i]) for i in group[:, 1]]
            _check_partners(sampler, int(rows[query]), others[0], others[1:])
        shown += rows.tolist()
    assert set(shown) == set(range(87))  # an epoch shows every slice of every class


def test_sampler_depends_on_the_seed_alone(sampler) -> None:
    first, again, other = (
        [rows.tolist() for rows, _ in sampler.batches(4, np.random.default_rng(seed))]
        for seed in (5, 5, 6)
    )
    assert first == again != other


def test_class_with_one_slice_is_refused() -> None:
    with pytest.raises(ConfigError, match="class 1 has 1"):
        PairSampler(np.array([0, 0, 1]), ["a", "b", "c"])


def test_split_has_no_case_on_both_sides_and_is_stratified() -> None:
    cases = [f"{label}{i}" for label in "ABCD" for i in range(20) for _ in range(3)]
    labels = [case[0] for case in cases]
    train, test = split_cases(cases, labels, 0.2, seed=3)
    assert not set(train) & set(test)
    assert set(train) | set(test) == set(cases)
    for label in "ABCD":
        assert sum(case[0] == label for case in test) == 4
    order = np.random.default_rng(0).permutation(len(cases))
    shuffled = split_cases([cases[i] for i in order], [labels[i] for i in order], 0.2, seed=3)
    assert shuffled == (train, test)
    assert split_cases(cases, labels, 0.2, seed=4) != (train, test)


def test_split_refuses_what_it_cannot_split() -> None:
    with pytest.raises(ConfigError, match="two diagnoses"):
        split_cases(["a", "a"], ["X", "Y"])
    with pytest.raises(ConfigError, match="2 or more"):
        split_cases(["a", "b", "c"], ["X", "X", "Y"])
    with pytest.raises(ConfigError, match="test_share"):
        split_cases(["a", "b"], ["X", "X"], test_share=1.0)


def test_a_class_of_one_case_takes_its_positives_from_it_never_itself() -> None:
    sampler = PairSampler(np.array([0, 0, 1, 1]), ["a", "a", "b", "b"])
    for seed in range(10):
        for query, positive, negatives in sampler.groups(np.random.default_rng(seed)):
            assert positive == {0: 1, 1: 0, 2: 3, 3: 2}[query]
            assert len(negatives) == 1
