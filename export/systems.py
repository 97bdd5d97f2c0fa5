"""The six systems of Table 2 (Chen et al. 2025): which backbone, and what stands on it."""

from __future__ import annotations

import dataclasses
from typing import Literal

BackboneName = Literal["vgg16", "alexnet", "resnet50"]
HeadName = Literal["none", "projection", "ild-ffn"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One row of Table 2.

    Attributes
    ----------
    name : str
        Key in :data:`SYSTEMS`, folder name, value of ``--system``.
    title : str
        The row's heading.
    backbone : str or None
        Trained in stage 1 to classify; None: radiomics alone.
    head : str
        ``"none"``: the pooled deep features (or the standardised radiomics) themselves are
        searched. ``"projection"``, ``"ild-ffn"``: trained in stage 2 by the contrastive loss, on
        the backbone of stage 1.
    """

    name: str
    title: str
    backbone: BackboneName | None
    head: HeadName


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System(name="vgg", title="VGG", backbone="vgg16", head="none"),
        System(name="alexnet", title="AlexNet", backbone="alexnet", head="none"),
        System(name="resnet50", title="ResNet50", backbone="resnet50", head="none"),
        System(name="omic", title="Omic (radiomics alone)", backbone=None, head="none"),
        System(name="resnet50-scl", title="ResNet50 + SCL", backbone="resnet50", head="projection"),
        System(name="ild-ffn-scl", title="ILD-FFN + SCL", backbone="resnet50", head="ild-ffn"),
    )
}
