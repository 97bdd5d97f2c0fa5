"""Splits by case and the choice of contrastive pairs, both seeded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ildsdk.errors import ConfigError


def split_cases(
    case_ids: Sequence[str], labels: Sequence[str], test_share: float = 0.2, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Split cases, not slices, within each class (the paper: 16 of 20 train, 4 test).

    Parameters
    ----------
    case_ids, labels : sequence of str
        One entry per slice (or per case): the case it belongs to and its diagnosis.
    test_share : float
        Share of each class's cases held out, in (0, 1); at least one, and at least one stays.
    seed : int
        Same seed and cases, same split, in whatever order the slices come.

    Returns
    -------
    tuple of list of str
        Training and held-out case ids, each sorted.

    Raises
    ------
    ConfigError
        A case carries two diagnoses, a class has fewer than two cases, or ``test_share`` is
        outside (0, 1).
    """
    if not 0 < test_share < 1:
        raise ConfigError(f"test_share is {test_share!r}, expected above 0 and below 1")
    label_of: dict[str, str] = {}
    for case_id, label in zip(case_ids, labels, strict=True):
        if label_of.setdefault(case_id, label) != label:
            raise ConfigError(
                f"case {case_id!r} carries two diagnoses ({label_of[case_id]!r}, {label!r}); "
                "one case has one"
            )
    rng = np.random.default_rng(seed)
    train: list[str] = []
    test: list[str] = []
    for label in sorted(set(label_of.values())):
        cases = sorted(case for case, its_label in label_of.items() if its_label == label)
        if len(cases) < 2:
            raise ConfigError(f"class {label!r} has {len(cases)} case, expected 2 or more to split")
        n_test = min(max(1, round(test_share * len(cases))), len(cases) - 1)
        order = rng.permutation(len(cases))
        test += [cases[i] for i in order[:n_test]]
        train += [cases[i] for i in order[n_test:]]
    return sorted(train), sorted(test)


class PairSampler:
    """For each query one positive of its class and one negative of each other class.

    This is section 4 of the method. Two ways of going through the data give the same
    kind of pairs: :meth:`groups` and :meth:`group_batches` draw partners from the whole set
    (each query costs N + 1 forward passes); :meth:`batches` draws class-balanced batches in
    which every slice is a query and finds its partners, so each forward pass serves several pairs.

    Parameters
    ----------
    class_indices : ndarray
        int ``(n,)``, class of each slice, 0 to N - 1; every class at least two slices.
    case_ids : sequence of str
        Case of each slice. A positive comes from another case wherever the class has one: two
        slices of one patient are alike for reasons that are not the disease.
    """

    def __init__(self, class_indices: npt.NDArray[np.int64], case_ids: Sequence[str]) -> None:
        self.class_indices = np.asarray(class_indices, dtype=np.int64)
        self.case_ids = np.asarray(case_ids)
        if self.class_indices.shape != self.case_ids.shape:
            raise ValueError(
                f"{self.class_indices.size} class indices but {self.case_ids.size} case ids"
            )
        self.n_classes = int(self.class_indices.max()) + 1
        counts = np.bincount(self.class_indices, minlength=self.n_classes)
        if counts.min() < 2:
            raise ConfigError(
                f"class {int(counts.argmin())} has {int(counts.min())} training slices, "
                "expected 2 or more"
            )

    def partners(
        self, query: int, pool: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[int, list[int]]:
        """Positive and negatives (one per other class, in class order) of a query from a pool."""
        pool = pool[pool != query]
        classes = self.class_indices[pool]
        own = self.class_indices[query]
        same = pool[classes == own]
        other_case = same[self.case_ids[same] != self.case_ids[query]]
        positive = int(rng.choice(other_case if other_case.size else same))
        negatives = [
            int(rng.choice(pool[classes == other]))
            for other in range(self.n_classes)
            if other != own
        ]
        return positive, negatives

    def groups(self, rng: np.random.Generator) -> Iterator[tuple[int, int, list[int]]]:
        """One epoch, each slice once as query in random order: (query, positive, negatives)."""
        everything = np.arange(self.class_indices.size)
        for query in rng.permutation(self.class_indices.size):
            positive, negatives = self.partners(int(query), everything, rng)
            yield int(query), positive, negatives

    def group_batches(
        self, n_queries: int, rng: np.random.Generator
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """One epoch of :meth:`groups`, ``n_queries`` at a time, in the form of :meth:`batches`.

        A slice that is partner of two queries stands once in ``rows``.
        """
        groups = list(self.groups(rng))
        for start in range(0, len(groups), n_queries):
            named = [
                (query, other)
                for query, positive, negatives in groups[start : start + n_queries]
                for other in (positive, *negatives)
            ]
            rows, places = np.unique(np.array(named, dtype=np.int64), return_inverse=True)
            yield rows, places.reshape(-1, 2).astype(np.int64)

    def batches(
        self, n_per_class: int, rng: np.random.Generator
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """One epoch of class-balanced batches and their pairs.

        Yields
        ------
        rows : ndarray
            int64 ``(N * n_per_class,)``, slices of the batch, distinct, ``n_per_class`` of each
            class (fewer only where a class has fewer).
        pairs : ndarray
            int64 ``(n_pairs, 2)``, positions in ``rows``: each slice with its positive, then
            with each of its negatives.

        Notes
        -----
        An epoch is as many batches as it takes to show each slice of the largest class
        once; smaller classes start again in a new order.
        """
        if n_per_class < 2:
            raise ValueError(f"n_per_class is {n_per_class}, expected 2 or more")
        members = [np.flatnonzero(self.class_indices == c) for c in range(self.n_classes)]
        n_batches = -(-max(m.size for m in members) // n_per_class)
        queues = [rng.permutation(m) for m in members]
        for _ in range(n_batches):
            picked = []
            for c, member in enumerate(members):
                take = min(n_per_class, member.size)
                if queues[c].size < take:
                    rest = np.setdiff1d(member, queues[c])
                    queues[c] = np.concatenate([queues[c], rng.permutation(rest)])
                picked.append(queues[c][:take])
                queues[c] = queues[c][take:]
            rows = np.concatenate(picked)
            place = {int(row): i for i, row in enumerate(rows)}
            pairs = []
            for row in rows:
                positive, negatives = self.partners(int(row), rows, rng)
                pairs += [(place[int(row)], place[other]) for other in (positive, *negatives)]
            yield rows, np.array(pairs, dtype=np.int64)
