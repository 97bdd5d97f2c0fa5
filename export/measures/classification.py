"""Precision, recall, F1 and confusion of a predicted class (eqs. 11-13)."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationMeasures:
    """One-against-the-rest measures of a predicted class (eqs. 11-13).

    Attributes
    ----------
    precision, recall, f1 : ndarray
        float64 ``(n_classes,)``, 0 where the denominator is 0; the paper's figure is their mean.
    confusion : ndarray
        float64 ``(n_classes, n_classes)``, row: true class, column: predicted; each row sums to
        1, less where queries had no answer, 0 where the class has no query.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    confusion: Floats
    accuracy: float

    def macro(self) -> dict[str, float]:
        """Unweighted means over the classes."""
        return {
            "precision": float(self.precision.mean()),
            "recall": float(self.recall.mean()),
            "f1": float(self.f1.mean()),
            "accuracy": self.accuracy,
        }


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, 0 where the denominator is 0."""
    return np.divide(
        numerator,
        denominator,
        out=np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape)),
        where=denominator > 0,
    )


def confusion_counts(truth: Ints, predicted: Ints, n_classes: int) -> Floats:
    """How many queries of each class got which class.

    Parameters
    ----------
    truth, predicted : ndarray
        int ``(n,)`` class indices; a prediction of -1 is "no answer".

    Returns
    -------
    ndarray
        float64 ``(n_classes, n_classes + 1)``, row: true class, column: predicted; the last
        column counts queries without an answer.
    """
    counts = np.zeros((n_classes, n_classes + 1), dtype=np.float64)
    np.add.at(counts, (truth, np.where(predicted < 0, n_classes, predicted)), 1)
    return counts


def _precision_recall_f1(counts: Floats) -> tuple[Floats, Floats, Floats]:
    """``(..., K, K + 1)`` counts to three ``(..., K)``."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    precision = ratio(hits, counts[..., :-1].sum(axis=-2))
    recall = ratio(hits, counts.sum(axis=-1))
    return precision, recall, ratio(2 * precision * recall, precision + recall)


def macro_f1_of_counts(counts: Floats) -> Floats:
    """Macro F1 of many tables at once: ``(..., K, K + 1)`` counts or weights to ``(...)``."""
    macro: Floats = _precision_recall_f1(counts)[2].mean(axis=-1)
    return macro


def measures_of_counts(counts: Floats) -> ClassificationMeasures:
    """Measures of one table of :func:`confusion_counts`; expected counts do as well."""
    precision, recall, f1 = _precision_recall_f1(counts)
    total = counts.sum()
    return ClassificationMeasures(
        precision=precision,
        recall=recall,
        f1=f1,
        confusion=ratio(counts[:, :-1], counts.sum(axis=1, keepdims=True)),
        accuracy=float(np.trace(counts) / total) if total else 0.0,
    )


def classification_measures(truth: Ints, predicted: Ints, n_classes: int) -> ClassificationMeasures:
    """Measures of predicted against true class indices, each int ``(n,)``, -1: no answer."""
    return measures_of_counts(confusion_counts(truth, predicted, n_classes))
