"""Settings of a training run."""

from __future__ import annotations

import dataclasses
from typing import Any

from export.precision import PRECISIONS, resolve_precision
from ildsdk.errors import ConfigError

CHOICES: dict[str, tuple[str, ...]] = {
    "precision": PRECISIONS,
    "device": ("cpu", "cuda"),
    "optimizer": ("adamw", "adam"),
    "lr_schedule": ("one-cycle", "cosine", "constant"),
    "fusion_lr_schedule": ("one-cycle", "cosine", "constant"),
    "loss": ("contrastive", "supcon", "triplet", "proxy-anchor"),
    "partners": ("batch", "set"),
}
# What a stage's weights depend on; a change of the others does not make it train again.
_BOTH_STAGES = (
    "seed", "precision", "device", "deterministic", "n_threads", "gem_p", "patience",
)  # fmt: skip
_STAGE_1 = (
    "schedule", "batch_size", "optimizer", "learning_rate", "weight_decay", "lr_schedule",
    "label_smoothing",
)  # fmt: skip
_MAPS = ("seed", "precision", "device", "deterministic", "n_threads", "fusion_views")
_STAGE_2 = (
    "fusion_epochs", "fusion_views", "fusion_per_class", "fusion_learning_rate",
    "fusion_weight_decay", "fusion_lr_schedule", "loss", "margin", "temperature", "partners",
    "train_last_block", "radiomics_noise", "embedding_size",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Recipe of both stages. The defaults fit two CPU cores in about 35 minutes.

    Measured on 2 cores, channels-last, forward and backward of ResNet-50 in ms per slice. With
    AVX-512 BF16, float32 and bfloat16: 96 px 46 and 23, 128 px 62 and 39, 160 px 84 and 48. On a
    processor without those instructions, float32: 112 px 71, 160 px 170, 224 px 360 (bfloat16
    there at 160 px: 2200). Hence small slices first and the full input size last.

    Attributes
    ----------
    seed : int
        Everything random comes from it; same seed, data, settings and thread count, same weights.
    precision : str
        ``"float32"``, ``"bfloat16"`` (convolutions only; pooling, losses and the embedding stay
        float32) or ``"auto"``, which becomes one of the two by the processor's instructions.
    device : str
        ``"cpu"`` or ``"cuda"`` (written for it, never run: there was no GPU to run it on).
    deterministic : bool
        Refuse operations whose result varies from run to run.
    patience : int
        Early stopping: stop after so many epochs without a better figure on cases held out of
        the training cases, and keep the best epoch's weights. 0: all epochs, the last weights.
    validation_share : float
        Share of each class's training cases held out for that, where the caller names none.
    schedule : tuple of (int, int)
        Stage 1: (input side in pixels, epochs), in order. The last side should be the bundle's.
    batch_size, optimizer, learning_rate, weight_decay, label_smoothing
        Stage 1. With ``"adamw"`` biases and norms are not decayed; ``"adam"`` is plain Adam with
        L2 on everything.
    lr_schedule, fusion_lr_schedule : str
        Of stage 1 and 2. ``"one-cycle"``: linear rise, then half a cosine to 0; ``"cosine"``: half
        a cosine from the start; ``"constant"``.
    fusion_epochs : int
        Stage 2: epochs of contrastive training, of whichever head.
    fusion_views : int
        Stage 2: the frozen part of the backbone runs once per slice and view; view 0 is
        the slice as it is, the others are augmented.
    fusion_per_class : int
        Stage 2: slices of each class in a batch; each is a query. The paper's batch of 8 with
        four classes is 2.
    fusion_learning_rate, fusion_weight_decay : stage 2 (Adam), as in the paper.
    loss : str
        Stage 2: ``"contrastive"`` (eqs. 4-5), ``"supcon"`` (Khosla et al. 2020), ``"triplet"`` or
        ``"proxy-anchor"`` (Kim et al. 2020), the last two from pytorch-metric-learning.
    margin : float
        Of the contrastive and of the triplet loss.
    temperature : float
        Of SupCon.
    partners : str
        Where the contrastive loss finds positive and negatives of a query: ``"batch"``, the
        class-balanced batch itself, or ``"set"``, drawn from the whole training set (N + 1 forward
        passes a query), as the paper words it.
    train_last_block : bool
        Stage 2 also trains the last residual block of the backbone (its batch norms stay frozen).
    radiomics_noise : float
        Standard deviation of noise on the standardised features, for what scanner and mask vary.
    gem_p, embedding_size : model.
    validate_every : int
        Held-out figures every so many epochs, and after the last; with early stopping every epoch.
    n_threads : int
        torch threads.
    tensorboard : bool
        Also write the logs for TensorBoard (the package must be installed).
    """

    seed: int = 0
    precision: str = "float32"
    device: str = "cpu"
    deterministic: bool = True
    patience: int = 0
    validation_share: float = 0.2
    schedule: tuple[tuple[int, int], ...] = ((112, 10), (160, 3))
    batch_size: int = 16
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    lr_schedule: str = "one-cycle"
    label_smoothing: float = 0.1
    fusion_epochs: int = 8
    fusion_views: int = 2
    fusion_per_class: int = 4
    fusion_learning_rate: float = 1e-4
    fusion_weight_decay: float = 1e-6
    fusion_lr_schedule: str = "constant"
    loss: str = "contrastive"
    margin: float = 0.7
    temperature: float = 0.1
    partners: str = "batch"
    train_last_block: bool = True
    radiomics_noise: float = 0.1
    gem_p: float = 3.0
    embedding_size: int = 128
    validate_every: int = 4
    n_threads: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        # JSON and command lines give lists.
        schedule = tuple((int(side), int(epochs)) for side, epochs in self.schedule)
        object.__setattr__(self, "schedule", schedule)
        # Recorded and compared is what runs, not "auto".
        object.__setattr__(self, "precision", resolve_precision(self.precision, self.device))
        if not schedule or any(side < 32 or epochs < 1 for side, epochs in schedule):
            raise ConfigError(
                f"schedule is {schedule!r}, "
                "expected pairs of side (32 or more) and epochs (1 or more)"
            )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(choices)}"
                )
        for name in ("batch_size", "fusion_per_class"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 2 or more")
        for name in ("fusion_epochs", "fusion_views", "validate_every", "n_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 1 or more")
        for name in ("learning_rate", "fusion_learning_rate", "margin", "temperature", "gem_p"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected above 0")
        if self.patience < 0:
            raise ConfigError(f"patience is {self.patience!r}, expected 0 (off) or more")
        if not 0 < self.validation_share < 1:
            raise ConfigError(
                f"validation_share is {self.validation_share!r}, expected above 0 and below 1"
            )
        if self.partners == "set" and self.loss != "contrastive":
            raise ConfigError(
                f"partners is 'set' with loss {self.loss!r}: only the contrastive loss asks for "
                "partners, the others take the batch as it is; use partners 'batch'"
            )

    @property
    def n_backbone_epochs(self) -> int:
        """Epochs of stage 1 over all sides."""
        return sum(epochs for _, epochs in self.schedule)

    def side_of_epoch(self, epoch: int) -> int:
        """Input side of stage-1 epoch (from 0)."""
        for side, epochs in self.schedule:
            if epoch < epochs:
                return side
            epoch -= epochs
        raise ValueError("epoch is beyond the schedule")

    def of_stage_1(self) -> dict[str, Any]:
        """The settings that stage 1 depends on."""
        return {name: getattr(self, name) for name in (*_BOTH_STAGES, *_STAGE_1)}

    def of_stage_2(self) -> dict[str, Any]:
        """The settings that stage 2 depends on beside the backbone it starts from."""
        return {name: getattr(self, name) for name in (*_BOTH_STAGES, *_STAGE_2)}

    def of_maps(self) -> dict[str, Any]:
        """The settings that the cached maps depend on beside the backbone."""
        return {name: getattr(self, name) for name in _MAPS}
