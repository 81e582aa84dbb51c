"""Batch-hard triplet loss."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["batch_hard_triplet", "euclidean_distances"]


def euclidean_distances(features: Tensor) -> Tensor:
    """Pairwise Euclidean distances [batch, batch] in float32; the gradient of a zero distance is zero."""
    features = features.float()
    squared = features.square().sum(1)
    distances = squared[:, None] + squared[None, :] - 2 * features @ features.T
    return distances.clamp(min=1e-12).sqrt()


def batch_hard_triplet(features: Tensor, labels: Tensor, margin: float | None) -> Tensor:
    """Mean over anchors of the loss on the farthest positive and the nearest negative (Hermans et al., 2017).

    Args:
        features: [batch, dimension], not normalised.
        labels: [batch], identities; each has a negative in the batch.
        margin: max(0, d_ap - d_an + margin), or the soft margin ln(1 + exp(d_ap - d_an)) for None.
    """
    distances = euclidean_distances(features)
    same = labels[:, None] == labels[None, :]
    # Rounding gives an anchor a distance to itself.
    others = same & ~torch.eye(len(labels), dtype=torch.bool, device=same.device)
    positive = distances.masked_fill(~others, 0).amax(1)
    negative = distances.masked_fill(same, torch.inf).amin(1)
    if margin is None:
        return functional.softplus(positive - negative).mean()
    return functional.relu(positive - negative + margin).mean()
