"""Decoded images that are read from memory maps when they are taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["DecodedImages"]


@dataclass(frozen=True)
class DecodedImages:
    """N images of one size, stored as rows of uint8 arrays [*, H, W, 3], which may be memory-mapped files.

    Args:
        arrays: One or more arrays.
        source: Index of the array that holds each image, int [N].
        row: Row of each image in its array, int [N].
    """

    arrays: Sequence[np.ndarray]
    source: np.ndarray
    row: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (N, H, W, 3)."""
        return len(self), *self.arrays[0].shape[1:]

    def take(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return a copy of n images in the given order, uint8 [n, H, W, 3]."""
        source, row = self.source[indices], self.row[indices]
        images = np.empty((len(row), *self.shape[1:]), np.uint8)
        for index in range(len(row)):
            images[index] = self.arrays[source[index]][row[index]]
        return images

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: int | slice) -> np.ndarray:
        """Return a copy of one image [H, W, 3], or of a range of n images [n, H, W, 3]."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self.take([index])[0]
