"""Lists of different lengths, stored one after the other in a flat array."""

import torch
from torch import Tensor

__all__ = ["segment_indices"]


def segment_indices(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Number the elements of m slices of a flat array, one slice after the other.

    Returns:
        For each element its slice, 0..m-1, and its position starts[slice] + 0, 1, ... in the flat array.
    """
    owner = torch.repeat_interleave(lengths)
    first = lengths.cumsum(0) - lengths
    return owner, torch.arange(len(owner), device=owner.device) + (starts - first)[owner]
