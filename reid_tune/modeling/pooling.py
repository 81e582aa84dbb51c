"""Pooling of a map to one feature: average, and generalised mean."""

import torch
from torch import Tensor, nn

__all__ = ["Average", "GeM"]


class Average(nn.Module):
    """Mean over the rows and columns of a map.

    Args:
        channels_last: Whether maps are [batch, H, W, C] and not [batch, C, H, W].
    """

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.dims = (1, 2) if channels_last else (2, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """Return features [batch, C], float32."""
        return maps.float().mean(self.dims)


class GeM(nn.Module):
    """(mean of max(x, 1e-6)^p over the map)^(1/p) with a learned p that starts at 3 (Radenovic et al., PAMI 2018).

    Args:
        channels_last: Whether maps are [batch, H, W, C] and not [batch, C, H, W].
    """

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor([3.0]))
        self.dims = (1, 2) if channels_last else (2, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """Return features [batch, C], float32."""
        powers = maps.float().clamp(min=1e-6).pow(self.exponent)
        return powers.mean(self.dims).pow(1 / self.exponent)
