"""How far the classes stand apart: eqs. 14-16, and Rousseeuw's silhouette under its own name."""

from __future__ import annotations

import numpy as np

from export.measures.classification import Floats, Ints


def _distances(vectors: Floats) -> Floats:
    squares = np.square(vectors).sum(axis=1)
    squared = squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T
    np.fill_diagonal(squared, 0)
    return np.sqrt(np.maximum(squared, 0))


def mean_distances(embeddings: Floats, class_indices: Ints) -> tuple[float, float]:
    """D_intra and D_inter: mean Euclidean distance of same- and different-class pairs.

    Eqs. 14-15, over all unordered pairs of distinct rows; NaN where there is no such pair.
    """
    rows, columns = np.triu_indices(embeddings.shape[0], k=1)
    same = class_indices[rows] == class_indices[columns]
    values = _distances(embeddings)[rows, columns]
    intra = float(values[same].mean()) if same.any() else float("nan")
    inter = float(values[~same].mean()) if (~same).any() else float("nan")
    return intra, inter


def separation(d_intra: float, d_inter: float) -> float:
    """``s = (D_inter - D_intra) / max(D_inter, D_intra)`` (eq. 16).

    The paper calls s "silhouette"; it is not Rousseeuw's, see :func:`silhouette_rousseeuw`.
    NaN where either distance is.
    """
    if np.isnan(d_intra) or np.isnan(d_inter):
        return float("nan")
    largest = max(d_inter, d_intra)
    return (d_inter - d_intra) / largest if largest > 0 else 0.0


def silhouette_rousseeuw(embeddings: Floats, class_indices: Ints) -> float:
    """Mean silhouette width with Euclidean distance.

    Per row: a = mean distance to its own class without itself, b = least mean distance to another
    class, ``(b - a) / max(a, b)``; 0 for a class of one row. NaN where there is one class only.

    References
    ----------
    Rousseeuw 1987, "Silhouettes: a graphical aid to the interpretation and validation of cluster
    analysis".
    """
    classes, members = np.unique(class_indices, return_inverse=True)
    if classes.size < 2:
        return float("nan")
    membership = np.eye(classes.size)[members]  # (n, n_classes)
    sizes = membership.sum(axis=0)
    sums = _distances(embeddings) @ membership  # (n, n_classes)
    rows = np.arange(members.size)
    own_size = sizes[members]
    a = sums[rows, members] / np.maximum(own_size - 1, 1)
    others = sums / sizes
    others[rows, members] = np.inf
    b = others.min(axis=1)
    width = np.where(own_size > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-300), 0.0)
    return float(width.mean())
