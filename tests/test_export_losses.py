"""Contrastive loss against plain loops; sampler and split properties."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from export.losses import contrastive_loss, euclidean_distance  # noqa: E402
from export.sampling import PairSampler, split_cases  # noqa: E402
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


def test_loss_gradient_is_right_and_finite_at_zero_distance() -> None:
    torch.manual_seed(0)
    first = torch.randn(6, 4, dtype=torch.float64, requires_grad=True) * 0.3
    second = torch.randn(6, 4, dtype=torch.float64) * 0.3
    same = torch.tensor([True, False, True, False, False, True])
    assert torch.autograd.gradcheck(
        lambda a: contrastive_loss(euclidean_distance(a, second), same), (first,)
    )
    twin = torch.ones(2, 3, requires_grad=True)
    loss = contrastive_loss(euclidean_distance(twin, twin.detach()), torch.tensor([True, False]))
    loss.backward()
    assert torch.isfinite(twin.grad).all()


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
