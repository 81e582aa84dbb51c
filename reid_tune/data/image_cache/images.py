"""Decoded crops that are read when they are taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["DecodedImages"]


@dataclass(frozen=True)
class DecodedImages:
    """N images of one size: rows of uint8 arrays [*, H, W, 3], which may be files mapped into memory.

    Args:
        arrays: one or more.
        source: int [N], the array that holds an image.
        row: int [N], the image's row there.
    """

    arrays: Sequence[np.ndarray]
    source: np.ndarray
    row: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return len(self), *self.arrays[0].shape[1:]

    def take(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of some images in the order given, uint8 [n, H, W, 3]."""
        source, row = self.source[indices], self.row[indices]
        images = np.empty((len(row), *self.shape[1:]), np.uint8)
        for place in range(len(row)):
            images[place] = self.arrays[source[place]][row[place]]
        return images

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: int | slice) -> np.ndarray:
        """A copy of one image [H, W, 3], or of a range of them [n, H, W, 3]."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self.take([index])[0]
