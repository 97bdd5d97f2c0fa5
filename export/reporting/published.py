"""The six systems in the order of the paper's tables, with the figures it published.

Chen et al. 2025, Tables 2 and 3: measured on the authors' private CT data. They stand in tables
of their own, never beside figures of other data.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """A system and its published figures.

    Attributes
    ----------
    precision, recall, f1 : float
        Percent, means over the classes (Table 2).
    d_intra, d_inter, s : float
        Distances of the features as they come (not of unit vectors where no contrastive loss
        normalises them) and eq. 16 (Table 3).
    """

    title: str
    precision: float
    recall: float
    f1: float
    d_intra: float
    d_inter: float
    s: float


def _row(title: str, *figures: float) -> PublishedRow:
    names = ("precision", "recall", "f1", "d_intra", "d_inter", "s")
    return PublishedRow(title=title, **dict(zip(names, figures, strict=True)))


PUBLISHED: dict[str, PublishedRow] = {
    "vgg": _row("VGG", 57.7, 58.9, 57.8, 43.209, 69.673, 0.379),
    "alexnet": _row("AlexNet", 61.9, 60.7, 60.1, 29.847, 50.678, 0.411),
    "resnet50": _row("ResNet50", 69.7, 69.6, 69.1, 22.201, 37.409, 0.406),
    "omic": _row("Omic (radiomics alone)", 72.1, 70.3, 69.9, 10.565, 14.333, 0.262),
    "resnet50-scl": _row("ResNet50 + SCL", 78.2, 77.6, 77.3, 0.569, 0.983, 0.420),
    "ild-ffn-scl": _row("ILD-FFN + SCL", 82.1, 81.1, 81.3, 0.511, 0.988, 0.482),
}
"""System name (folder in a fold) to its row, in the order of the tables."""

MAIN_SYSTEM = "ild-ffn-scl"
SOURCE = (
    "Chen, Wang, Jiang, Chen, Xie, Cai: Diagnosis of interstitial lung disease based on "
    "multi-feature fusion contrast learning retrieval. Science Technology and Engineering 2025, "
    "25(11): 4476-4482, DOI 10.12404/j.issn.1671-1815.2406118"
)
