"""What the threshold of "no similar case" is worth by the number of cases it was measured on.

    python -m benchmarks.threshold_of_few_cases

Draws some cases of each diagnosis from the embedded phantom index, measures the threshold on them
as ``ildsdk index calibrate`` does, and looks at the slices of the other cases. Then the same with
one diagnosis left out whole, and at its slices. No timing; figures for docs/answers.md.
"""

from __future__ import annotations

import click
import numpy as np
import numpy.typing as npt

from ildsdk import defaults
from ildsdk.index import Index
from ildsdk.index.threshold import CALIBRATION_PERCENTILE

N_DRAWS = 60
N_EACH = (1, 2, 3, 5, 8, 12)


class Drawn:
    """Cosines of all slices of the index, and draws of some cases of each label."""

    def __init__(self) -> None:
        with Index.open(defaults.index_path(), engine="numpy") as index:
            embeddings, items = index.embeddings(), index.items(index.rows())
        self.cosines = embeddings @ embeddings.T
        self.labels = np.array([item.label for item in items])
        self.cases = np.array([item.case_id for item in items])
        self._generator = np.random.default_rng(0)

    def rows(self, n_each: int, left_out: str | None) -> npt.NDArray[np.bool_]:
        """Mask of the slices of so many cases of each label but one."""
        chosen = [
            self._generator.choice(np.unique(self.cases[self.labels == label]), n_each, False)
            for label in np.unique(self.labels)
            if label != left_out
        ]
        return np.isin(self.cases, np.concatenate(chosen))

    def threshold(self, rows: npt.NDArray[np.bool_]) -> float:
        """Percentile of the best cosines among other cases."""
        cosines = self.cosines[np.ix_(rows, rows)].copy()
        cosines[self.cases[rows, np.newaxis] == self.cases[rows]] = -1
        return float(np.percentile(cosines.max(axis=1), CALIBRATION_PERCENTILE))

    def share_below(self, rows: npt.NDArray[np.bool_], queries: npt.NDArray[np.bool_]) -> float:
        """Share of queries that the threshold of these rows calls unlike all of them."""
        best = self.cosines[np.ix_(queries, rows)].max(axis=1)
        return float((best < self.threshold(rows)).mean())


@click.command()
def main() -> None:
    """Print medians over draws."""
    drawn = Drawn()
    labels = np.unique(drawn.labels)
    click.echo(
        "cases of each diagnosis: threshold, its standard deviation; share of slices below it"
    )
    for n_each in N_EACH:
        draws = [drawn.rows(n_each, None) for _ in range(N_DRAWS)]
        found = [drawn.threshold(rows) for rows in draws]
        others = [drawn.share_below(rows, ~rows) for rows in draws]
        unknown = []
        for number in range(N_DRAWS):
            label = labels[number % len(labels)]
            unknown.append(drawn.share_below(drawn.rows(n_each, label), drawn.labels == label))
        low, high = np.percentile(unknown, [5, 95])
        click.echo(
            f"{n_each:2d}: {np.median(found):.3f}, {np.std(found):.4f}; other cases "
            f"{np.mean(others):.3f}, a diagnosis left out {np.mean(unknown):.2f} "
            f"(5 to 95 %: {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
