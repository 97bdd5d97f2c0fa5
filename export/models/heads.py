"""The heads of stage 2 by their names in :mod:`export.systems`."""

from __future__ import annotations

from export.models.ild_ffn import IldFfn
from export.models.projection import Projection
from export.models.resnet import N_DEEP_FEATURES

Head = IldFfn | Projection


def make_head(name: str, n_radiomics: int, embedding_size: int) -> Head:
    """Give a randomly started head."""
    if name == "ild-ffn":
        return IldFfn(N_DEEP_FEATURES, n_radiomics, embedding_size)
    if name == "projection":
        return Projection(N_DEEP_FEATURES, embedding_size)
    raise ValueError(f"head is {name!r}, expected 'ild-ffn' or 'projection'")
