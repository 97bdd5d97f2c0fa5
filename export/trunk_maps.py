"""Stage 2 trains on stored feature maps: the frozen part of the backbone runs once per slice."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from export.augment import AugmentSettings, augment
from export.checkpoints import state_sha256
from export.dataset import SliceSet
from export.models.resnet import ResNet50
from export.precision import autocast
from export.train_settings import TrainSettings
from export.training_data import Roles, data_sha256, fingerprint


class Tail(nn.Module):
    """The last residual block and the pooling: what of the backbone stage 2 may still change."""

    def __init__(self, backbone: ResNet50) -> None:
        super().__init__()
        self.block = backbone.layer4[-1]
        self.gem = backbone.gem

    def forward(self, maps: Tensor) -> Tensor:
        """Maps before the last block ``(n, 2048, h, w)`` -> deep features ``(n, 2048)``."""
        return self.gem(self.block(maps))


def trunk_maps(backbone: ResNet50, images: Tensor) -> Tensor:
    """Feature maps before the last block: ``(n, 1, S, S) -> (n, 2048, S / 32, S / 32)``."""
    last_block = backbone.layer4[-1]
    backbone.layer4[-1] = nn.Identity()
    try:
        return backbone.feature_map(images)
    finally:
        backbone.layer4[-1] = last_block


class StoredMaps:
    """Maps of the training slices in every view, of the other slices as they are.

    Parameters
    ----------
    maps : ndarray
        float16 ``(n_views * n_train + n_others, 2048, h, w)``: the training slices in view 0 (not
        augmented), in view 1, ..., then the others.
    n_train, n_views : int
    """

    def __init__(self, maps: npt.NDArray[np.float16], n_train: int, n_views: int) -> None:
        self.maps = maps
        self.n_train = n_train
        self.n_views = n_views

    def read(self, rows: npt.NDArray[np.int64], views: npt.NDArray[np.int64] | int = 0) -> Tensor:
        """float32 ``(n, 2048, h, w)``; rows from n_train on are the others, in view 0 only."""
        is_other = rows >= self.n_train
        places = np.where(
            is_other, rows + (self.n_views - 1) * self.n_train, rows + views * self.n_train
        )
        return torch.from_numpy(self.maps[places].astype(np.float32))


@torch.inference_mode()
def store_maps(
    slices: SliceSet,
    roles: Roles,
    backbone: ResNet50,
    settings: TrainSettings,
    augmentation: AugmentSettings,
    path: Path,
    show_progress: bool,
) -> StoredMaps:
    """Run the frozen trunk over every slice and view, into a memory map on disk.

    A finished file is used again if it came from the same trunk, slices and settings of the
    maps: systems that stand on one backbone share it. Otherwise it is written anew.
    """
    trunk = {k: v for k, v in backbone.state_dict().items() if not k.startswith("layer4.2.")}
    mark = fingerprint(
        {
            "trunk_sha256": state_sha256(trunk),
            "settings": settings.of_maps(),
            "augmentation": dataclasses.asdict(augmentation),
            "data_sha256": data_sha256(slices),
            "rows": [roles.train.tolist(), roles.validation.tolist(), roles.watched.tolist()],
        }
    )
    n_views, n_train = settings.fusion_views, roles.train.size
    others = np.concatenate([roles.validation, roles.watched])
    marker = path.with_suffix(".json")
    if not (
        path.exists() and marker.exists() and json.loads(marker.read_text())["fingerprint"] == mark
    ):
        marker.unlink(missing_ok=True)  # or a kill between the two renames leaves a wrong pair
        path.parent.mkdir(parents=True, exist_ok=True)
        size = slices.method.input_size
        side = -(-size // 32)
        draft = path.with_suffix(".partial")
        maps = np.lib.format.open_memmap(
            draft,
            mode="w+",
            dtype=np.float16,
            shape=(n_views * n_train + others.size, 2048, side, side),
        )
        passes = [(view, roles.train, view * n_train) for view in range(n_views)]
        passes.append((0, others, n_views * n_train))
        backbone.to(settings.device, memory_format=torch.channels_last).eval()
        bar = tqdm(total=len(maps), desc="feature maps", unit="slice", disable=not show_progress)
        with bar:
            for view, rows, offset in passes:
                generator = torch.Generator().manual_seed(settings.seed * 1000 + view)
                for start in range(0, rows.size, 16):
                    part = rows[start : start + 16]
                    images = torch.from_numpy(slices.images[part].astype(np.float32))
                    if view > 0:
                        images = augment(
                            images, size, slices.method.window_width_hu, augmentation, generator
                        )
                    with autocast(settings.precision, settings.device):
                        found = trunk_maps(backbone, images.to(settings.device))
                    place = offset + start
                    maps[place : place + part.size] = found.float().cpu().numpy()
                    bar.update(part.size)
        maps.flush()
        del maps
        os.replace(draft, path)
        draft = marker.with_suffix(".json.partial")
        draft.write_text(json.dumps({"fingerprint": mark}), encoding="utf-8")
        os.replace(draft, marker)
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    return StoredMaps(stored, n_train, n_views)
