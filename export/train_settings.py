"""Settings of a training run."""

from __future__ import annotations

import dataclasses

from ildsdk.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Recipe of both stages. The defaults fit two CPU cores in about 35 minutes.

    Measured there, 2 threads, float32, channels-last, forward and backward of ResNet-50 in ms per
    slice: 112 px 71, 160 px 170, 192 px 256, 224 px 360 (bfloat16 at 160 px: 2200, the CPU has no
    instructions for it). Hence small slices first and the full input size last.

    Attributes
    ----------
    seed : int
        Everything random comes from it; same seed, data, settings and thread count, same weights.
    schedule : tuple of (int, int)
        Stage 1: (input side in pixels, epochs), in order. The last side should be the bundle's.
    batch_size, learning_rate, weight_decay, label_smoothing : stage 1 (AdamW, one cycle).
    fusion_epochs : int
        Stage 2: epochs of contrastive training.
    fusion_views : int
        Stage 2: the frozen part of the backbone runs once per slice and view; view 0 is
        the slice as it is, the others are augmented.
    fusion_per_class : int
        Stage 2: slices of each class in a batch; each is a query. The paper's batch of 8 with
        four classes is 2.
    fusion_learning_rate, fusion_weight_decay, margin : stage 2 (Adam), as in the paper.
    train_last_block : bool
        Stage 2 also trains the last residual block of the backbone (its batch norms stay frozen).
    radiomics_noise : float
        Standard deviation of noise on the standardised features, for what scanner and mask vary.
    gem_p, embedding_size : model.
    validate_every : int
        Held-out figures every so many epochs, and after the last.
    n_threads : int
        torch threads.
    """

    seed: int = 0
    schedule: tuple[tuple[int, int], ...] = ((112, 10), (160, 3))
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    fusion_epochs: int = 8
    fusion_views: int = 2
    fusion_per_class: int = 4
    fusion_learning_rate: float = 1e-4
    fusion_weight_decay: float = 1e-6
    margin: float = 0.7
    train_last_block: bool = True
    radiomics_noise: float = 0.1
    gem_p: float = 3.0
    embedding_size: int = 128
    validate_every: int = 4
    n_threads: int = 2

    def __post_init__(self) -> None:
        # JSON and command lines give lists.
        schedule = tuple((int(side), int(epochs)) for side, epochs in self.schedule)
        object.__setattr__(self, "schedule", schedule)
        if not schedule or any(side < 32 or epochs < 1 for side, epochs in schedule):
            raise ConfigError(
                f"schedule is {schedule!r}, "
                "expected pairs of side (32 or more) and epochs (1 or more)"
            )
        for name in ("batch_size", "fusion_per_class"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 2 or more")
        for name in ("fusion_epochs", "fusion_views", "validate_every", "n_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected 1 or more")
        for name in ("learning_rate", "fusion_learning_rate", "margin", "gem_p"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected above 0")

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
