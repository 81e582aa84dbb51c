"""Metric losses: triplet loss and center loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "CenterLoss",
    "batch_hard_triplet",
    "cosine_distances",
    "euclidean_distances",
    "weighted_triplet",
]


def euclidean_distances(features: Tensor) -> Tensor:
    """Return pairwise Euclidean distances [batch, batch] in float32; the gradient of a zero distance is zero."""
    features = features.float()
    squared = features.square().sum(1)
    distances = squared[:, None] + squared[None, :] - 2 * features @ features.T
    return distances.clamp(min=1e-12).sqrt()


def cosine_distances(features: Tensor) -> Tensor:
    """Return 1 - cosine, pairwise [batch, batch] in float32; a feature of zeros has distance 1 to all."""
    unit = functional.normalize(features.float())
    return 1 - unit @ unit.T


def batch_hard_triplet(distances: Tensor, labels: Tensor, margin: float | None) -> Tensor:
    """Return the mean loss of all anchors with farthest positive and nearest negative (Hermans et al., 2017).

    Args:
        distances: Pairwise distances [batch, batch].
        labels: Identities [batch]; each has a negative in the batch.
        margin: Margin of max(0, d_ap - d_an + margin); None for the soft margin ln(1 + exp(d_ap - d_an)).
    """
    positives, same = _pairs(labels)
    farthest_positive = distances.masked_fill(~positives, 0).amax(1)
    nearest_negative = distances.masked_fill(same, torch.inf).amin(1)
    if margin is None:
        return functional.softplus(farthest_positive - nearest_negative).mean()
    return functional.relu(farthest_positive - nearest_negative + margin).mean()


def weighted_triplet(distances: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of ln(1 + exp(p - n)) over all anchors (weighted regularised triplet; Ye et al., PAMI 2021).

    p is the mean distance to the positives of the anchor, weighted by the softmax of these distances, and n that to its
    negatives, weighted by the softmax of the negative distances. The gradient includes that of the weights.

    Args:
        distances: Pairwise distances [batch, batch].
        labels: Identities [batch]; each has a negative in the batch. Without a positive p is 0.
    """
    positives, same = _pairs(labels)
    gaps = _weighted_mean(distances, distances, positives) - _weighted_mean(distances, -distances, ~same)
    return functional.softplus(gaps).mean()


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs of positives, and those of the same identity, which include each image with itself."""
    same = labels[:, None] == labels[None, :]
    # Rounding gives an anchor a distance to itself.
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=same.device), same


def _weighted_mean(distances: Tensor, scores: Tensor, pairs: Tensor) -> Tensor:
    """Return the mean distance of each row's pairs, weighted by the softmax of their scores; 0 without a pair."""
    scores = scores.masked_fill(~pairs, torch.finfo(scores.dtype).min)
    return (scores.softmax(1) * distances * pairs).sum(1)


class CenterLoss(nn.Module):
    """Mean squared distance of the features to the learned centre of their identity (Wen et al., ECCV 2016).

    Args:
        classes: Number of training identities.
        dimension: Dimension of the features.
        weight: Weight of the loss in the sum of losses.
        rate: Learning rate of the centres, by plain gradient descent.
        seed: Seed of the centres' initial values, which are standard normal.
    """

    def __init__(self, classes: int, dimension: int, weight: float, rate: float, seed: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(classes, dimension, generator=torch.Generator().manual_seed(seed)))
        self.weight = weight
        self.rate = rate

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted loss, a float32 scalar.

        Args:
            features: Features [batch, dimension] of any precision.
            labels: Classes [batch], int64.
        """
        distances = features.float() - functional.embedding(labels, self.centers)
        return self.weight * distances.square().sum(1).mean()

    @torch.no_grad()
    def step(self, scale: Tensor | None = None) -> None:
        """Move the centres against their gradient, divided by the loss's weight and by `scale`, and clear it.

        Args:
            scale: Factor on the loss, a scalar on the device of the centres; None for 1.
        """
        if self.centers.grad is not None:
            gradient = self.centers.grad if scale is None else self.centers.grad / scale
            self.centers.sub_(gradient, alpha=self.rate / self.weight)
            self.centers.grad = None
