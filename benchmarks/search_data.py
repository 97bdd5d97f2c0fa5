"""Vectors and queries of the search benchmarks, the same for the same seed on one machine.

Three kinds. ``uniform``: random on the sphere, the worst case of every index. ``clustered``: shaped
like a contrastively trained 4-class embedding (class > case > neighboring slices). ``phantom``:
the embeddings of the index that ships with ildsdk. Queries come in two halves: one to tune
on, one to score; they share no slice and no case that is not in the set.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from native_hash import unit_rows
from native_hash.reference import canonical_dots

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

KINDS = ("uniform", "clustered", "phantom")
N_CLASSES = 4
SLICES_PER_CASE = 362  # the paper's 28,942 slices of 80 patients

# Lengths of the parts whose sum, scaled to unit norm, is a clustered vector. Chosen so that mean
# cosines lie near those of the phantom embeddings (`Difficulty`, printed by the report).
COMMON, CLASS, CASE, PATH, NOISE = 0.7, 0.75, 0.22, 0.32, 0.17
N_LATENT = 10  # dimensions in which cases and their paths lie
N_HARMONICS = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchData:
    """A set of unit vectors and its queries.

    Attributes
    ----------
    kind : str
        One of ``KINDS``.
    vectors : ndarray
        float32 ``(n, d)`` in random order, which favors nobody: in the order of cases, graph
        indexes would get poorly connected and our rows would lie nearer to each other.
    tuning, scored : ndarray
        float32 ``(m, d)``, the two halves of the queries.
    classes, cases : ndarray
        int64 ``(n,)``, of each vector; all zero, and all different, where there are none.
    """

    kind: str
    vectors: Float32
    tuning: Float32
    scored: Float32
    classes: Int64
    cases: Int64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """Mean cosines that say how hard a set is; NaN where there is no such pair.

    Attributes
    ----------
    within_case, within_class, between_classes : float
        Of random pairs: same case; same class but another case; another class.
    nearest, tenth : float
        Of the scored queries to their first and tenth exact neighbor.
    """

    within_case: float
    within_class: float
    between_classes: float
    nearest: float
    tenth: float


def make_data(
    kind: str, n: int, dimension: int, *, n_queries: int = 600, seed: int = 0
) -> SearchData:
    """Draw a set; ``n``, ``dimension`` and ``n_queries`` (of each half) are given for ``phantom``.

    Raises
    ------
    ValueError
        Unknown kind, or an odd or too small number of queries.
    """
    if kind == "phantom":
        return _phantom(seed)
    if n_queries < 2 or n_queries % 2:
        raise ValueError(f"n_queries is {n_queries}, expected an even number from 2")
    if kind == "clustered":
        return _clustered(n, dimension, n_queries, seed)
    if kind != "uniform":
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((n, dimension), dtype=np.float32)
    _to_unit_norm(rows)
    queries = unit_rows(generator.standard_normal((2 * n_queries, dimension), dtype=np.float32))
    return SearchData(
        kind=kind,
        vectors=rows,
        tuning=queries[:n_queries].copy(),
        scored=queries[n_queries:].copy(),
        classes=np.zeros(n, np.int64),
        cases=np.arange(n),
    )


def _to_unit_norm(rows: Float32) -> None:
    """Scale in place, without the float64 copy of ``unit_rows`` (4 GB at 1M x 512)."""
    rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, np.newaxis]


class _CaseMaker:
    """Draws cases one after the other: slices along a smooth closed curve near their class."""

    def __init__(self, dimension: int, generator: np.random.Generator) -> None:
        self._generator = generator
        self._dimension = dimension
        latent = min(N_LATENT, dimension)
        self._basis = np.linalg.qr(generator.standard_normal((dimension, latent)))[0].T
        self._common = COMMON * _direction(generator, dimension)
        self._classes = [CLASS * _direction(generator, dimension) for _ in range(N_CLASSES)]

    def slices(self, label: int) -> Float32:
        """Unit vectors of one more case of a class, in the order of the slices."""
        generator = self._generator
        n_slices = max(8, round(generator.normal(SLICES_PER_CASE, 60)))
        position = (np.arange(n_slices) + 0.5 * generator.random(n_slices)) / n_slices
        weights = 1 / np.arange(1, N_HARMONICS + 1)
        weights *= PATH / np.linalg.norm(weights)
        angles = np.pi * np.outer(position, np.arange(1, N_HARMONICS + 1))
        waves = np.concatenate([np.sin(angles) * weights, np.cos(angles) * weights], axis=1)
        latent = waves @ self._latent(2 * N_HARMONICS) + CASE * self._latent(1)
        rows = latent @ self._basis + self._common + self._classes[label]
        noise = generator.standard_normal((n_slices, self._dimension), dtype=np.float32)
        return unit_rows((rows + NOISE / np.sqrt(self._dimension) * noise).astype(np.float32))

    def _latent(self, n: int) -> npt.NDArray[np.float64]:
        size = self._basis.shape[0]
        return self._generator.standard_normal((n, size)) / np.sqrt(size)


def _direction(generator: np.random.Generator, dimension: int) -> npt.NDArray[np.float64]:
    drawn = generator.standard_normal(dimension)
    return drawn / np.linalg.norm(drawn)


def _clustered(n: int, dimension: int, n_queries: int, seed: int) -> SearchData:
    """Half of the queries are further slices of cases in the set, half of cases that are not."""
    generator = np.random.default_rng(seed)
    maker = _CaseMaker(dimension, generator)
    n_slices = n + n_queries  # half of each of the two halves comes from known cases
    place = generator.permutation(n_slices)  # from n on: queries
    vectors = np.empty((n, dimension), np.float32)
    known = np.empty((n_queries, dimension), np.float32)
    classes, cases = np.empty(n_slices, np.int64), np.empty(n_slices, np.int64)
    start = case = 0
    while start < n_slices:
        rows = maker.slices(case % N_CLASSES)[: n_slices - start]
        places = place[start : start + len(rows)]
        in_set = places < n
        vectors[places[in_set]] = rows[in_set]
        known[places[~in_set] - n] = rows[~in_set]
        classes[places], cases[places] = case % N_CLASSES, case
        start, case = start + len(rows), case + 1
    half = n_queries // 2
    tuning, scored = (
        np.concatenate([some, _from_new_cases(maker, half, generator)])
        for some in (known[:half], known[half:])
    )
    return SearchData(
        kind="clustered",
        vectors=vectors,
        tuning=generator.permutation(tuning),
        scored=generator.permutation(scored),
        classes=classes[:n],
        cases=cases[:n],
    )


def _from_new_cases(maker: _CaseMaker, n: int, generator: np.random.Generator) -> Float32:
    """Some slices of at least two new cases of each class."""
    n_cases = N_CLASSES * max(2, -(-n // (N_CLASSES * SLICES_PER_CASE // 2)))
    rows = np.concatenate([maker.slices(case % N_CLASSES) for case in range(n_cases)])
    picked: Float32 = rows[generator.choice(len(rows), n, replace=False)]
    return picked


def _phantom(seed: int) -> SearchData:
    """Embeddings of the shipped index; a quarter of the cases of each class are the queries."""
    from ildsdk import defaults
    from ildsdk.index import Index

    with Index.open(defaults.index_path()) as index:
        vectors, items = index.embeddings(), index.items(range(len(index)))
    classes = np.unique([item.label for item in items], return_inverse=True)[1]
    cases = np.unique([item.case_id for item in items], return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    role = np.zeros(cases.max() + 1, np.int64)  # 0 in the set, 1 tuning, 2 scored
    for label in range(classes.max() + 1):
        of_label = generator.permutation(np.unique(cases[classes == label]))
        n_each = max(1, len(of_label) // 8)
        role[of_label[:n_each]], role[of_label[n_each : 2 * n_each]] = 1, 2
    kept = generator.permutation(np.flatnonzero(role[cases] == 0))
    return SearchData(
        kind="phantom",
        vectors=vectors[kept],
        tuning=generator.permutation(vectors[role[cases] == 1]),
        scored=generator.permutation(vectors[role[cases] == 2]),
        classes=classes[kept].astype(np.int64),
        cases=cases[kept].astype(np.int64),
    )


def exact_neighbors(vectors: Float32, queries: Float32, top_n: int) -> tuple[Int64, Float32]:
    """Brute force: the definition every contender is checked against.

    A float32 product of matrices names the rows that can be among the best, with twice its
    rounding error to spare; those are scored in float64 in canonical order, rounded to float32
    and ranked, of equal scores the lower row first.

    Returns
    -------
    rows, scores : ndarray
        int64 and float32 ``(m, top_n)``, best first.
    """
    slack = (vectors.shape[1] + 8) * 2.0**-22  # both sides of the comparison round
    rows = np.empty((len(queries), top_n), np.int64)
    scores = np.empty((len(queries), top_n), np.float32)
    for start in range(0, len(queries), 32):
        product = queries[start : start + 32] @ vectors.T
        for number, row in enumerate(product, start):
            least = np.partition(row, len(row) - top_n)[len(row) - top_n] - slack
            candidates = np.flatnonzero(row >= least)
            exact = canonical_dots(vectors[candidates], queries[number]).astype(np.float32)
            best = np.lexsort((candidates, -exact))[:top_n]
            rows[number], scores[number] = candidates[best], exact[best]
    return rows, scores


def recall_at_n(vectors: Float32, queries: Float32, found: Int64, exact_scores: Float32) -> float:
    """Share of the exact answers found; an answer that ties with the last exact one counts.

    Raises
    ------
    ValueError
        A row is answered twice to one query.
    """
    n_right = 0
    for query, rows, exact in zip(queries, found, exact_scores, strict=True):
        answered = rows[rows >= 0]
        if len(np.unique(answered)) != len(answered):
            raise ValueError("a row was answered twice to one query")
        scores = canonical_dots(vectors[answered], query).astype(np.float32)
        n_right += int(np.count_nonzero(scores >= exact[-1]))
    return n_right / exact_scores.size


def difficulty(data: SearchData, exact_scores: Float32, *, seed: int = 0) -> Difficulty:
    """Measure a set on random pairs of its vectors and on its scored queries."""
    generator = np.random.default_rng(seed)
    n_pairs = 20_000
    first = generator.integers(0, len(data.vectors), n_pairs)
    second = generator.integers(0, len(data.vectors), n_pairs)
    same_class = data.classes[first] == data.classes[second]
    same_case = data.cases[first] == data.cases[second]
    order = np.argsort(data.cases, kind="stable")  # pairs of one case, rare among random ones
    at = generator.integers(0, len(order) - 1, n_pairs)
    ahead = np.minimum(at + generator.integers(1, SLICES_PER_CASE // 2, n_pairs), len(order) - 1)
    near, far = order[at], order[ahead]
    is_pair = (data.cases[near] == data.cases[far]) & (near != far)
    with_classes = data.classes.any()
    return Difficulty(
        within_case=_mean_cosine(data.vectors, near[is_pair], far[is_pair]),
        within_class=_mean_cosine(
            data.vectors, *((first[same_class & ~same_case], second[same_class & ~same_case]))
        )
        if with_classes
        else float("nan"),
        between_classes=_mean_cosine(data.vectors, first[~same_class], second[~same_class])
        if with_classes
        else _mean_cosine(data.vectors, first, second),
        nearest=float(exact_scores[:, 0].mean()),
        tenth=float(exact_scores[:, -1].mean()),
    )


def _mean_cosine(vectors: Float32, first: Int64, second: Int64) -> float:
    if not first.size:
        return float("nan")
    return float(np.einsum("ij,ij->i", vectors[first], vectors[second]).mean())
