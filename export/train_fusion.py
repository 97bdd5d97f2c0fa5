"""Stage 2: contrastive training of ILD-FFN on top of the trained backbone (method section 4)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from export.augment import AugmentSettings, augment
from export.checkpoints import Checkpoint
from export.dataset import SliceSet
from export.losses import contrastive_loss, euclidean_distance
from export.models.ild_ffn import IldFfn
from export.models.resnet import ResNet50
from export.sampling import PairSampler
from export.train_settings import TrainSettings

_VALIDATION_ROWS = 400


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


@torch.inference_mode()
def cache_maps(
    slices: SliceSet,
    rows: npt.NDArray[np.int64],
    backbone: ResNet50,
    settings: TrainSettings,
    augmentation: AugmentSettings,
    path: Path,
    fingerprint: str,
    show_progress: bool,
) -> npt.NDArray[np.float16]:
    """Run the frozen trunk once over every slice and view, into a memory map on disk.

    Returns
    -------
    ndarray
        float16 ``(n_views, n_rows, 2048, h, w)``, read-only; view 0 is not augmented.
    """
    marker = path.with_suffix(".json")
    if not (marker.exists() and json.loads(marker.read_text())["fingerprint"] == fingerprint):
        backbone.eval()
        size = slices.method.input_size
        side = -(-size // 32)
        shape = (settings.fusion_views, rows.size, 2048, side, side)
        draft = path.with_suffix(".partial")
        maps = np.lib.format.open_memmap(draft, mode="w+", dtype=np.float16, shape=shape)
        bar = tqdm(
            total=shape[0] * shape[1], desc="feature maps", unit="slice", disable=not show_progress
        )
        with bar:
            for view in range(settings.fusion_views):
                generator = torch.Generator().manual_seed(settings.seed * 1000 + view)
                for start in range(0, rows.size, 16):
                    part = rows[start : start + 16]
                    images = torch.from_numpy(slices.images[part].astype(np.float32))
                    if view > 0:
                        images = augment(
                            images, size, slices.method.window_width_hu, augmentation, generator
                        )
                    maps[view, start : start + part.size] = trunk_maps(backbone, images).numpy()
                    bar.update(part.size)
        maps.flush()
        del maps
        os.replace(draft, path)
        marker.write_text(json.dumps({"fingerprint": fingerprint}))
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def train_fusion(
    slices: SliceSet,
    train_rows: npt.NDArray[np.int64],
    held_out_rows: npt.NDArray[np.int64],
    radiomics: npt.NDArray[np.float32],
    backbone: ResNet50,
    fusion: IldFfn,
    settings: TrainSettings,
    checkpoint: Checkpoint,
    augmentation: AugmentSettings,
    maps_path: Path,
    show_progress: bool = True,
) -> None:
    """Train ``fusion`` and, if set, the backbone's last block; both are changed in place.

    Parameters
    ----------
    radiomics : ndarray
        Standardised features of all slices, float32 ``(n, p)``.
    """
    torch.manual_seed(settings.seed + 2)
    used = np.concatenate([train_rows, held_out_rows])
    maps = cache_maps(
        slices, used, backbone, settings, augmentation, maps_path, checkpoint.fingerprint,
        show_progress,
    )  # fmt: skip
    n_train = train_rows.size
    values = torch.from_numpy(radiomics[used])
    classes = slices.class_indices()[used]
    tail = Tail(backbone).eval().requires_grad_(settings.train_last_block)
    parameters = [p for p in (*fusion.parameters(), *tail.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(
        parameters, lr=settings.fusion_learning_rate, weight_decay=settings.fusion_weight_decay
    )
    first_epoch = 0
    if (state := checkpoint.load()) is not None:
        fusion.load_state_dict(state["fusion"])
        tail.load_state_dict(state["tail"])
        optimizer.load_state_dict(state["optimizer"])
        first_epoch = state["epoch"] + 1
    else:
        _center(fusion, tail, maps, values, n_train, settings.seed)

    sampler = PairSampler(classes[:n_train], [slices.case_ids[row] for row in train_rows])
    for epoch in range(first_epoch, settings.fusion_epochs):
        started = time.perf_counter()
        rng = np.random.default_rng([settings.seed, 2, epoch])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        fusion.train()
        total_loss, n_queries = 0.0, 0
        bar = tqdm(
            list(sampler.batches(settings.fusion_per_class, rng)),
            desc=f"fusion {epoch + 1}/{settings.fusion_epochs}",
            disable=not show_progress,
        )
        for rows, pairs in bar:
            views = rng.integers(settings.fusion_views, size=rows.size)
            deep = tail(torch.from_numpy(maps[views, rows].astype(np.float32)))
            noise = torch.randn(values[rows].shape, generator=generator)
            embeddings = fusion(deep, values[rows] + settings.radiomics_noise * noise)
            first, second = torch.from_numpy(pairs).unbind(dim=1)
            same = torch.from_numpy(classes[rows][pairs[:, 0]] == classes[rows][pairs[:, 1]])
            distance = euclidean_distance(embeddings[first], embeddings[second])
            loss = contrastive_loss(distance, same, settings.margin) / rows.size
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * rows.size
            n_queries += rows.size
            bar.set_postfix(loss=f"{total_loss / n_queries:.4f}", refresh=False)
        held_out: float | None = None  # not measured in this epoch
        if epoch + 1 == settings.fusion_epochs or (epoch + 1) % settings.validate_every == 0:
            held_out = round(_top1(fusion, tail, maps, values, classes, n_train, settings.seed), 4)
        checkpoint.save(
            {
                "fusion": fusion.state_dict(),
                "tail": tail.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
            },
            {
                "epoch": epoch + 1,
                "loss": round(total_loss / max(1, n_queries), 6),
                "held_out_top1": held_out,
                "seconds": round(time.perf_counter() - started, 1),
            },
        )


@torch.inference_mode()
def _embed(
    fusion: IldFfn, tail: Tail, maps: npt.NDArray[np.float16], values: Tensor, rows: Any,
    unnormalized: bool = False,
) -> Tensor:  # fmt: skip
    fusion.eval()
    function = fusion.fused if unnormalized else fusion
    parts = []
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        deep = tail(torch.from_numpy(maps[0, part].astype(np.float32)))
        parts.append(function(deep, values[part]))
    return torch.cat(parts)


def _center(
    fusion: IldFfn, tail: Tail, maps: npt.NDArray[np.float16], values: Tensor, n_train: int,
    seed: int,
) -> None:  # fmt: skip
    """Choose the initial bias so that F has mean 0 over the training set.

    Deep features are not negative: without this all embeddings start within a few degrees of
    each other, and the first epochs would go into turning one common direction.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(n_train)[:256])
    fused = _embed(fusion, tail, maps, values, rows, unnormalized=True)
    with torch.no_grad():
        fusion.linear.bias -= fused.mean(dim=0)


def _top1(
    fusion: IldFfn, tail: Tail, maps: npt.NDArray[np.float16], values: Tensor,
    classes: npt.NDArray[np.int64], n_train: int, seed: int,
) -> float:  # fmt: skip
    """Share of held-out slices whose nearest of (at most 400) training slices has their class."""
    rng = np.random.default_rng(seed)
    stored = np.sort(rng.permutation(n_train)[:_VALIDATION_ROWS])
    queries = np.arange(n_train, classes.size)
    scores = (
        _embed(fusion, tail, maps, values, queries) @ _embed(fusion, tail, maps, values, stored).T
    )
    nearest = stored[scores.argmax(dim=1).numpy()]
    return float((classes[nearest] == classes[queries]).mean())
