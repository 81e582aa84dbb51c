"""Center loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CenterLoss"]


class CenterLoss(nn.Module):
    """Mean squared distance of the features to the learned centre of their identity (Wen et al., ECCV 2016).

    Args:
        classes: Training identities.
        dimension: Of the features.
        weight: Of the loss in the sum of losses.
        rate: Learning rate of the centres, by plain gradient descent.
        seed: Of the centres' first places, standard normal.
    """

    def __init__(self, classes: int, dimension: int, weight: float, rate: float, seed: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(classes, dimension, generator=torch.Generator().manual_seed(seed)))
        self.weight = weight
        self.rate = rate

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The weighted loss, a float32 scalar; features [batch, dimension] of any precision, labels [batch] int64."""
        distances = features.float() - functional.embedding(labels, self.centers)
        return self.weight * distances.square().sum(1).mean()

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> None:
        """Move the centres against their gradient, freed of the loss's weight and of `scale`, and forget it."""
        if self.centers.grad is not None:
            self.centers.sub_(self.centers.grad, alpha=self.rate / self.weight / scale)
            self.centers.grad = None
