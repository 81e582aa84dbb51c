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
    def step(self, scale: Tensor | None = None) -> None:
        """Move the centres against their gradient, divided by the loss's weight and by `scale`, and clear it.

        Args:
            scale: Factor on the loss, a scalar on the device of the centres; None for 1.
        """
        if self.centers.grad is not None:
            gradient = self.centers.grad if scale is None else self.centers.grad / scale
            self.centers.sub_(gradient, alpha=self.rate / self.weight)
            self.centers.grad = None
