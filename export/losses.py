"""Losses of stage 2: the method's contrastive loss (eqs. 4-5), SupCon, and two from a library."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.train_settings import TrainSettings
from ildsdk.errors import ConfigError

MARGIN = 0.7
# Kim et al. 2020 train the proxies at a hundred times the learning rate of the network.
PROXY_LEARNING_RATE_FACTOR = 100.0


def euclidean_distance(first: Tensor, second: Tensor, eps: float = 1e-12) -> Tensor:
    """Row-wise Euclidean distance (eq. 4): ``(n, d), (n, d) -> (n,)``.

    ``eps`` under the root keeps the gradient finite where two rows are equal.
    """
    return ((first - second).square().sum(dim=1) + eps).sqrt()


def contrastive_loss(distance: Tensor, is_same_class: Tensor, margin: float = MARGIN) -> Tensor:
    """``1/2 sum(b D^2) + 1/2 sum((1 - b) max(0, margin - D)^2)`` over the pairs (eq. 5).

    Parameters
    ----------
    distance : Tensor
        ``(n_pairs,)`` Euclidean distances of unit embeddings, in [0, 2].
    is_same_class : Tensor
        bool ``(n_pairs,)``: b of eq. 5.
    margin : float
        Pairs of different class further apart than this cost nothing.

    Returns
    -------
    Tensor
        Scalar, the plain sum of eq. 5. Divide by the number of queries to compare batches.
    """
    same = 0.5 * distance.square()
    different = 0.5 * (margin - distance).clamp(min=0).square()
    return torch.where(is_same_class, same, different).sum()


def supcon_loss(embeddings: Tensor, classes: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss, the form with the sum outside the logarithm (L_out).

    For each anchor i with positives P(i), the others of its class in the batch:
    ``-1 / |P(i)| sum_{p in P(i)} log(exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t))``,
    averaged over the anchors that have a positive.

    Parameters
    ----------
    embeddings : Tensor
        ``(n, d)``, unit rows.
    classes : Tensor
        int64 ``(n,)``.

    References
    ----------
    Khosla et al. 2020, "Supervised contrastive learning", eq. 2.
    """
    logits = embeddings @ embeddings.T / temperature
    itself = torch.eye(len(classes), dtype=torch.bool, device=logits.device)
    log_sum = logits.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    is_positive = (classes[:, None] == classes[None, :]) & ~itself
    n_positives = is_positive.sum(dim=1)
    summed = (logits - log_sum).masked_fill(~is_positive, 0.0).sum(dim=1)
    has_positive = n_positives > 0
    return -(summed[has_positive] / n_positives[has_positive]).mean()


class PairLoss(nn.Module):
    """Eqs. 4-5 over the sampler's pairs, per query."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, classes: Tensor, pairs: Tensor) -> Tensor:
        """``(n, d)``, ``(n,)`` and ``(n_pairs, 2)`` places of query and partner -> scalar."""
        first, second = pairs.unbind(dim=1)
        distance = euclidean_distance(embeddings[first], embeddings[second])
        total = contrastive_loss(distance, classes[first] == classes[second], self.margin)
        return total / first.unique().numel()


class SupConLoss(nn.Module):
    """:func:`supcon_loss` of the batch; the pairs are not used."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, embeddings: Tensor, classes: Tensor, pairs: Tensor) -> Tensor:
        """As :meth:`PairLoss.forward`."""
        return supcon_loss(embeddings, classes, self.temperature)


class LibraryLoss(nn.Module):
    """A loss of pytorch-metric-learning on the batch; the pairs are not used."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, embeddings: Tensor, classes: Tensor, pairs: Tensor) -> Tensor:
        """As :meth:`PairLoss.forward`."""
        return self.loss(embeddings, classes)


def make_loss(settings: TrainSettings, n_classes: int) -> nn.Module:
    """The loss named in the settings: ``(embeddings, classes, pairs) -> scalar``.

    Parameters that it learns (the proxies) belong into the optimizer and the checkpoint.

    Raises
    ------
    ConfigError
        The loss comes from pytorch-metric-learning, which is not installed.
    """
    if settings.loss == "contrastive":
        return PairLoss(settings.margin)
    if settings.loss == "supcon":
        return SupConLoss(settings.temperature)
    try:
        from pytorch_metric_learning import losses
    except ImportError as error:
        raise ConfigError(
            f"loss {settings.loss!r} needs the package pytorch-metric-learning, which is not "
            "installed: `pip install pytorch-metric-learning`, or use contrastive or supcon"
        ) from error
    if settings.loss == "triplet":
        return LibraryLoss(losses.TripletMarginLoss(margin=settings.margin))
    return LibraryLoss(losses.ProxyAnchorLoss(n_classes, settings.embedding_size))
