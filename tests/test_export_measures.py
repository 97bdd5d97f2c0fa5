"""Retrieval measures against scikit-learn and plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from export.measures import (
    average_precision_by_query,
    case_rankings,
    case_top1_labels,
    classification_measures,
    confusion_counts,
    draw_cases,
    macro_f1_of_counts,
    mean_average_precision,
    mean_distances,
    ndcg_by_query,
    no_match_threshold,
    percentile_interval,
    precision_at_n,
    precision_by_query,
    rank_rows,
    retrieval_report,
    separation,
    silhouette_rousseeuw,
)

metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture
def clustered() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=90)
    vectors = rng.normal(size=(4, 12))[truth] + rng.normal(0, 1.2, (90, 12))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), truth


def test_classification_measures_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(4, size=200)
    predicted = np.where(rng.random(200) < 0.6, truth, rng.integers(3, size=200))
    found = classification_measures(truth, predicted, 4)
    expected = metrics.precision_recall_fscore_support(
        truth, predicted, labels=range(4), zero_division=0
    )
    np.testing.assert_allclose(found.precision, expected[0])
    np.testing.assert_allclose(found.recall, expected[1])
    np.testing.assert_allclose(found.f1, expected[2])
    np.testing.assert_allclose(
        found.confusion, metrics.confusion_matrix(truth, predicted, normalize="true")
    )
    assert found.macro()["f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert found.accuracy == metrics.accuracy_score(truth, predicted)


def test_a_query_without_an_answer_costs_recall_and_accuracy_not_precision() -> None:
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, -1, 1, 0])
    assert confusion_counts(truth, predicted, 2).tolist() == [[1, 0, 1], [1, 1, 0]]
    found = classification_measures(truth, predicted, 2)
    assert found.recall.tolist() == [0.5, 0.5]
    assert found.precision.tolist() == [0.5, 1]
    assert found.confusion.tolist() == [[0.5, 0], [0.5, 0.5]]
    assert found.accuracy == 0.5


def test_a_class_never_predicted_counts_zero_not_nan() -> None:
    found = classification_measures(np.array([0, 1]), np.array([0, 0]), 3)
    assert found.precision.tolist() == [0.5, 0, 0]
    assert found.f1[1:].tolist() == [0, 0]
    assert np.isfinite(found.confusion).all()


def test_average_precision_equals_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    scores, relevant = rng.random((7, 50)), rng.random((7, 50)) < 0.3
    order = rank_rows(scores)
    ranked = np.take_along_axis(relevant, order, axis=1)
    expected = [
        metrics.average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)
    ]
    assert mean_average_precision(ranked) == pytest.approx(np.mean(expected))
    assert precision_at_n(ranked, 10) == pytest.approx(
        np.mean([relevant[q, order[q, :10]].sum() / 10 for q in range(7)])
    )


def plain_ranking(scores: list[float]) -> list[int]:
    """Insert each row behind all that are as good: descending, ties by row."""
    ranked: list[int] = []
    for row, score in enumerate(scores):
        place = 0
        while place < len(ranked) and scores[ranked[place]] >= score:
            place += 1
        ranked.insert(place, row)
    return ranked


def plain_average_precision(ranked: list[bool]) -> float:
    n_hits, total = 0, 0.0
    for rank, is_hit in enumerate(ranked, start=1):
        if is_hit:
            n_hits += 1
            total += n_hits / rank
    return total / n_hits if n_hits else 0.0


def plain_ndcg(ranked: list[bool], n: int) -> float:
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(ranked[:n], start=1) if hit)
    best = sorted(ranked, reverse=True)[:n]
    ideal = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(best, start=1) if hit)
    return gain / ideal if ideal else 0.0


def test_ranked_measures_equal_plain_loops_where_scores_tie() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(4, size=(30, 17)) / 4.0  # many ties
    relevant = rng.random((30, 17)) < rng.random((30, 1)) * 0.6
    relevant[0], relevant[1] = False, True
    order = rank_rows(scores)
    ranked = np.take_along_axis(relevant, order, axis=1)
    for q in range(30):
        expected = plain_ranking(scores[q].tolist())
        assert order[q].tolist() == expected
        hits = [bool(relevant[q, row]) for row in expected]
        assert average_precision_by_query(ranked)[q] == pytest.approx(plain_average_precision(hits))
        for n in (1, 5, 10, 40):
            assert precision_by_query(ranked, n)[q] == pytest.approx(sum(hits[:n]) / n)
            assert ndcg_by_query(ranked, n)[q] == pytest.approx(plain_ndcg(hits, n))
    assert ndcg_by_query(ranked, 10)[:2].tolist() == [0, pytest.approx(1)]


def test_ndcg_equals_scikit_learn() -> None:
    rng = np.random.default_rng(6)
    scores, relevant = rng.random((9, 40)), rng.random((9, 40)) < 0.3
    ranked = np.take_along_axis(relevant, rank_rows(scores), axis=1)
    expected = metrics.ndcg_score(relevant.astype(float), scores, k=10)
    assert ndcg_by_query(ranked, 10).mean() == pytest.approx(expected)


def test_ties_go_to_the_lower_row() -> None:
    assert rank_rows(np.array([[0.5, 0.9, 0.5, 0.9]])).tolist() == [[1, 3, 0, 2]]


def test_mean_distances_and_separation_are_equations_14_to_16(clustered) -> None:
    vectors, truth = clustered
    intra, inter = [], []
    for i, j in itertools.combinations(range(len(truth)), 2):
        distance = float(np.sqrt(((vectors[i] - vectors[j]) ** 2).sum()))
        (intra if truth[i] == truth[j] else inter).append(distance)
    d_intra, d_inter = mean_distances(vectors, truth)
    assert d_intra == pytest.approx(np.mean(intra))
    assert d_inter == pytest.approx(np.mean(inter))
    assert separation(d_intra, d_inter) == pytest.approx(1 - np.mean(intra) / np.mean(inter))
    assert separation(0.511, 0.988) == pytest.approx(0.482, abs=1e-3)  # the paper's last row


def test_silhouette_equals_scikit_learn_and_is_not_s(clustered) -> None:
    vectors, truth = clustered
    truth = np.where(np.arange(90) == 0, 7, truth)  # a class of one row counts 0
    found = silhouette_rousseeuw(vectors, truth)
    assert found == pytest.approx(metrics.silhouette_score(vectors, truth))
    assert np.isnan(silhouette_rousseeuw(vectors, np.zeros(90, np.int64)))
    assert np.isnan(separation(float("nan"), 1.0))
    assert abs(found - separation(*mean_distances(vectors, truth))) > 0.02


def test_case_ranking_follows_the_rule_of_case_rank() -> None:
    scores = np.array([[0.9, 0.2, 0.8, 0.7], [0.1, 0.6, 0.5, 0.55]])
    index_cases = ["a", "a", "b", "c"]
    # a: .9 + .6; b: .8 + .5; c: .7 + .55
    assert case_top1_labels(scores, ["q", "q"], index_cases) == {"q": "a"}
    # A single very good slice does not beat a case that is good throughout.
    scores = np.array([[0.95, 0.9], [0.1, 0.9]])
    assert case_top1_labels(scores, ["q", "q"], ["a", "b"]) == {"q": "b"}


def test_all_cases_are_ranked_by_the_mean_of_their_best_cosines_ties_by_name() -> None:
    rng = np.random.default_rng(7)
    scores = rng.integers(5, size=(12, 20)) / 4.0  # exact sums, so equal means are equal
    query_cases = [f"q{number}" for number in rng.integers(3, size=12)]
    index_cases = [f"c{number}" for number in rng.integers(6, size=20)]
    found = case_rankings(scores, query_cases, index_cases)
    assert set(found) == set(query_cases)
    for case, ranking in found.items():
        means = {}
        for other in set(index_cases):
            best = [
                max(scores[q, i] for i in range(20) if index_cases[i] == other)
                for q in range(12)
                if query_cases[q] == case
            ]
            means[other] = sum(best) / len(best)
        assert ranking == sorted(means, key=lambda other: (-means[other], other))


def test_cases_are_drawn_within_their_class_and_alike_for_one_seed() -> None:
    classes = np.array([0, 1, 0, 2, 1, 0])
    drawn = draw_cases(classes, 4000, seed=3)
    assert drawn.shape == (4000, 6)
    for number, size in ((0, 3), (1, 2), (2, 1)):
        assert (drawn[:, classes == number].sum(axis=1) == size).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.06)
    assert drawn.max() == 3  # with replacement
    np.testing.assert_array_equal(drawn, draw_cases(classes, 4000, seed=3))
    assert (drawn != draw_cases(classes, 4000, seed=4)).any()


def test_percentile_interval_leaves_half_of_the_rest_on_each_side() -> None:
    values = np.arange(1001.0)
    assert percentile_interval(values, 0.95) == (pytest.approx(25), pytest.approx(975))
    assert percentile_interval(values, 0.99) == (pytest.approx(5), pytest.approx(995))
    with pytest.raises(ValueError, match="level"):
        percentile_interval(values, 95)


def test_macro_f1_of_many_tables_equals_scikit_learn_on_repeated_rows() -> None:
    rng = np.random.default_rng(8)
    truth, predicted = rng.integers(3, size=40), rng.integers(3, size=40)
    weights = rng.integers(3, size=(5, 40))
    tables = np.stack(
        [confusion_counts(np.repeat(truth, w), np.repeat(predicted, w), 3) for w in weights]
    )
    expected = [
        metrics.f1_score(
            np.repeat(truth, w), np.repeat(predicted, w), average="macro", labels=range(3),
            zero_division=0,
        )
        for w in weights
    ]  # fmt: skip
    np.testing.assert_allclose(macro_f1_of_counts(tables), expected)


def test_threshold_is_the_first_percentile() -> None:
    best = np.linspace(0, 1, 1001)
    assert no_match_threshold(best) == pytest.approx(0.01)


def test_report_of_a_perfect_and_of_a_useless_embedding() -> None:
    labels = [label for label in "ABCD" for _ in range(10)]
    cases = [f"{label}{i // 5}" for label in "ABCD" for i in range(10)]
    number = np.array(["ABCD".index(label) for label in labels])
    jitter = np.random.default_rng(0).normal(0, 1e-3, (40, 8))
    perfect = np.eye(8)[number] + jitter
    common = {"query_labels": labels, "index_labels": labels, "label_names": list("ABCD")}

    def run(vectors: np.ndarray) -> dict:
        return retrieval_report(
            query_embeddings=vectors,
            query_cases=[f"q-{case}" for case in cases],
            index_embeddings=vectors,
            index_cases=cases,
            top_n=10,
            **common,
        )

    good = run(perfect)
    assert good["slice_top1"]["f1"] == good["precision_at_n"] == good["case_top1"]["f1"] == 1
    assert good["mean_average_precision"] == pytest.approx(1)
    assert good["s_eq16"] > 0.99
    useless = run(np.tile([1.0, 0], (40, 1)))
    assert useless["slice_top1"]["accuracy"] == 0.25
    assert useless["baseline_prevalence"]["accuracy_random_neighbor"] == pytest.approx(0.25)
    assert (good["n_query_cases"], good["n_index_slices"]) == (8, 40)


def test_a_case_on_both_sides_is_refused() -> None:
    with pytest.raises(ValueError, match="split by case"):
        retrieval_report(
            query_embeddings=np.eye(2), query_labels=["A", "B"], query_cases=["c1", "c2"],
            index_embeddings=np.eye(2), index_labels=["A", "B"], index_cases=["c2", "c3"],
            label_names=["A", "B"],
        )  # fmt: skip
