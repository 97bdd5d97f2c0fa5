"""Stage 2: contrastive training of a head on the trained ResNet-50 (method section 4)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from export.augment import AugmentSettings
from export.checkpoints import Checkpoint, Entry, state_sha256
from export.dataset import SliceSet
from export.losses import PROXY_LEARNING_RATE_FACTOR, make_loss
from export.models.heads import Head, make_head
from export.models.resnet import ResNet50
from export.precision import autocast
from export.sampling import PairSampler
from export.train_settings import TrainSettings
from export.training_data import Roles, Rows, data_sha256, fingerprint, roles_of
from export.training_loop import (
    Score,
    learning_rate_factor,
    prepare_torch,
    run_epochs,
    set_learning_rate,
)
from export.trunk_maps import StoredMaps, Tail, store_maps
from ildsdk.errors import ConfigError
from ildsdk.radiomics.scaler import FeatureScaler

CHECKPOINT_NAME = "contrast.pt"
_MAX_STORED = 400


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contrasted:
    """What stage 2 leaves.

    Attributes
    ----------
    backbone : ResNet50
        A copy of the one handed in, with the last block as this stage trained it.
    head : IldFfn or Projection
        Both in evaluation mode, on the CPU.
    log : list of dict
        One entry per epoch.
    """

    backbone: ResNet50
    head: Head
    log: list[Entry]


def contrast(
    slices: SliceSet,
    train_cases: Sequence[str],
    head_name: str,
    backbone: ResNet50,
    out: Path,
    settings: TrainSettings,
    *,
    maps_path: Path | None = None,
    validation_cases: Sequence[str] = (),
    watched_cases: Sequence[str] = (),
    augmentation: AugmentSettings | None = None,
    show_progress: bool = True,
) -> Contrasted:
    """Train a head and, if set, the backbone's last block by the contrastive loss.

    Goes on from the checkpoint in ``out``; a finished stage is only read.

    Parameters
    ----------
    train_cases : sequence of str
        Weights and the scaler of the radiomics are fitted to these cases alone.
    head_name : str
        ``"ild-ffn"`` or ``"projection"``.
    backbone : ResNet50
        Of stage 1, trained on the same cases. Not changed.
    out : Path
        Folder of ``contrast.pt`` and the log ``contrast.csv``.
    maps_path : Path or None
        ``.npy`` file of the frozen trunk's maps, shared by the heads on one backbone; None keeps
        one in ``out``.
    validation_cases, watched_cases
        As in :func:`export.train_backbone.classify`; the figures are top-1 of these slices against
        at most 400 training slices.

    Raises
    ------
    ConfigError
        The folder holds another run, a case has two roles, or early stopping has no cases.
    """
    augmentation = augmentation or AugmentSettings()
    roles = roles_of(slices, train_cases, validation_cases, watched_cases)
    if settings.patience and not roles.validation.size:
        raise ConfigError("early stopping (patience) needs validation cases, and none were given")
    prepare_torch(settings)
    out.mkdir(parents=True, exist_ok=True)
    mark = fingerprint(
        {
            "stage": "contrast",
            "head": head_name,
            "backbone_sha256": state_sha256(backbone.state_dict()),
            "settings": settings.of_stage_2(),
            "augmentation": dataclasses.asdict(augmentation),
            "method": dataclasses.asdict(slices.method),
            "data_sha256": data_sha256(slices),
            "train_cases": sorted(train_cases),
            "validation_cases": sorted(validation_cases),
        }
    )
    checkpoint = Checkpoint(out / CHECKPOINT_NAME, mark, settings.tensorboard)
    device = settings.device
    backbone = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
    torch.manual_seed(settings.seed + 2)
    head = make_head(head_name, slices.radiomics.shape[1], settings.embedding_size)
    loss_function = make_loss(settings, len(slices.label_names))
    tail = Tail(backbone).eval().requires_grad_(settings.train_last_block)
    modules: dict[str, nn.Module] = {"head": head, "tail": tail, "loss": loss_function}

    maps = None
    if not _is_finished(checkpoint):  # or the maps would be made for nothing
        maps = store_maps(
            slices, roles, backbone, settings, augmentation,
            maps_path or out / "maps.npy", show_progress,
        )  # fmt: skip
    for module in (*modules.values(), backbone):
        module.to(device)
    run = _Run(slices, roles, settings, head, tail, loss_function, maps, show_progress)
    run_epochs(
        checkpoint,
        modules,
        run.optimizer,
        settings.fusion_epochs,
        train_epoch=run.train_epoch,
        measure=run.measure,
        patience=settings.patience,
        before_first=run.center,
    )
    backbone.to("cpu").eval().requires_grad_(True)
    return Contrasted(backbone=backbone, head=head.to("cpu").eval(), log=checkpoint.log)


def _is_finished(checkpoint: Checkpoint) -> bool:
    state = checkpoint.load()
    return state is not None and bool(state["is_finished"])


class _Run:
    """One stage-2 run: rows 0 to n_train - 1 train, then validation, then watched slices."""

    def __init__(
        self,
        slices: SliceSet,
        roles: Roles,
        settings: TrainSettings,
        head: Head,
        tail: Tail,
        loss_function: nn.Module,
        maps: StoredMaps | None,
        show_progress: bool,
    ) -> None:
        self.settings, self.head, self.tail = settings, head, tail
        self.loss_function, self._maps, self.show_progress = loss_function, maps, show_progress
        rows = np.concatenate([roles.train, roles.validation, roles.watched])
        scaler = FeatureScaler.fit(slices.radiomics[roles.train])
        self.radiomics = torch.from_numpy(scaler.transform(slices.radiomics[rows]))
        self.classes = slices.class_indices()[rows]
        n_train, n_validation = roles.train.size, roles.validation.size
        self.train, self.validation, self.watched = np.split(
            np.arange(rows.size), [n_train, n_train + n_validation]
        )
        self.sampler = PairSampler(
            self.classes[:n_train], [slices.case_ids[row] for row in roles.train]
        )

    @property
    def maps(self) -> StoredMaps:
        if self._maps is None:
            raise RuntimeError("a finished stage needs no maps")
        return self._maps

    def optimizer(self) -> torch.optim.Optimizer:
        rate = self.settings.fusion_learning_rate
        network = [p for p in (*self.head.parameters(), *self.tail.parameters()) if p.requires_grad]
        groups = [{"params": network, "lr": rate}]
        if proxies := list(self.loss_function.parameters()):
            groups.append({"params": proxies, "lr": rate * PROXY_LEARNING_RATE_FACTOR})
        return torch.optim.Adam(groups, weight_decay=self.settings.fusion_weight_decay, fused=True)

    def _batches(self, rng: np.random.Generator) -> list[tuple[Rows, Rows]]:
        per_class = self.settings.fusion_per_class
        if self.settings.partners == "set":
            return list(self.sampler.group_batches(per_class * self.sampler.n_classes, rng))
        return list(self.sampler.batches(per_class, rng))

    def _fused(self, maps: Tensor, radiomics: Tensor) -> Tensor:
        device = self.settings.device
        with autocast(self.settings.precision, device):
            deep = self.tail(maps.to(device, memory_format=torch.channels_last))
            return self.head.fused(deep, radiomics.to(device)).float()

    def train_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> Entry:
        settings, device = self.settings, self.settings.device
        rng = np.random.default_rng([settings.seed, 2, epoch])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self.head.train()
        batches = self._batches(rng)
        title = f"contrast {epoch + 1}/{settings.fusion_epochs}"
        bar = tqdm(batches, desc=title, disable=not self.show_progress)
        total_loss = 0.0
        for batch, (rows, pairs) in enumerate(bar):
            step = epoch * len(batches) + batch
            n_steps = settings.fusion_epochs * len(batches)
            set_learning_rate(
                optimizer, learning_rate_factor(settings.fusion_lr_schedule, step, n_steps)
            )
            views = rng.integers(settings.fusion_views, size=rows.size)
            noise = torch.randn(self.radiomics[rows].shape, generator=generator)
            values = self.radiomics[rows] + settings.radiomics_noise * noise
            embeddings = functional.normalize(
                self._fused(self.maps.read(rows, views), values), dim=1
            )
            classes = torch.from_numpy(self.classes[rows]).to(device)
            loss = self.loss_function(embeddings, classes, torch.from_numpy(pairs).to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += loss.item()
            bar.set_postfix(loss=f"{total_loss / (batch + 1):.4f}", refresh=False)
        return {"loss": round(total_loss / len(batches), 6)}

    def measure(self, epoch: int) -> tuple[Entry, Score | None]:
        entry: Entry = {"validation_top1": None, "test_top1_for_information": None}
        score: Score | None = None
        is_due = (
            epoch + 1 == self.settings.fusion_epochs
            or (epoch + 1) % self.settings.validate_every == 0
        )
        use_validation = self.validation.size and (self.settings.patience or is_due)
        use_watched = self.watched.size and is_due
        if use_validation or use_watched:
            rng = np.random.default_rng(self.settings.seed)
            stored = np.sort(rng.permutation(self.train.size)[:_MAX_STORED])
            database = functional.normalize(self._embed(stored), dim=1)
        if use_validation:
            score = self._top1(self.validation, stored, database)
            entry["validation_top1"] = round(score[0], 4)
        if use_watched:
            entry["test_top1_for_information"] = round(
                self._top1(self.watched, stored, database)[0], 4
            )
        return entry, score

    def _top1(self, queries: Rows, stored: Rows, database: Tensor) -> tuple[float, float]:
        """Share of queries whose nearest stored slice has their class, and the mean margin.

        The margin is the best cosine within the class less the best one outside: it tells
        epochs of equal top-1 apart.
        """
        scores = functional.normalize(self._embed(queries), dim=1) @ database.T
        same = torch.from_numpy(self.classes[queries][:, None] == self.classes[stored][None])
        same = same.to(scores.device)
        margin = scores.masked_fill(~same, -1).amax(dim=1) - scores.masked_fill(same, -1).amax(
            dim=1
        )
        return float((margin > 0).float().mean()), float(margin.mean())

    @torch.inference_mode()
    def _embed(self, rows: Rows) -> Tensor:
        """F before normalisation, evaluation mode, view 0."""
        self.head.eval()
        parts = [rows[start : start + 32] for start in range(0, rows.size, 32)]
        return torch.cat([self._fused(self.maps.read(p), self.radiomics[p]) for p in parts])

    def center(self) -> None:
        """Choose the initial bias so that F has mean 0 over the training set.

        Deep features are not negative: without this all embeddings start within a few degrees of
        each other, and the first epochs would go into turning one common direction.
        """
        rng = np.random.default_rng(self.settings.seed)
        fused = self._embed(np.sort(rng.permutation(self.train.size)[:256]))
        with torch.no_grad():
            self.head.linear.bias -= fused.mean(dim=0)
