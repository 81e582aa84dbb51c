"""The centre of embeddings that lie so close together that float32 products would lose their order.

A squared distance 2 - 2ab of rows of length 1 is rounded to about 1e-7, whatever its size. Distances do not change when
the same vector is subtracted from all rows, and then the rounding shrinks with the rows.
"""

import numpy as np

__all__ = ["CLOSE", "find_centre", "sample_indices"]

CLOSE = 1e-3  # median squared distance of two rows of length 1 below which rows are centred: 10,000 roundings

_SAMPLE = 64  # rows whose distances decide: 2,016 pairs


def sample_indices(count: int) -> np.ndarray:
    """Return up to 64 evenly spaced indices below `count`, int64."""
    return np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))


def find_centre(sample: np.ndarray) -> np.ndarray | None:
    """Return the centre float64 [d] of rows that are close together, otherwise None.

    The centre is the median of each column, which a minority of distant rows does not move.

    Args:
        sample: Different rows [n, d] of any length above 0.
    """
    rows = sample / np.abs(sample).max(axis=1, keepdims=True).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    left, right = np.triu_indices(len(rows), 1)
    if not len(left) or np.median(2 - 2 * (rows @ rows.T)[left, right]) >= CLOSE:
        return None
    return np.asarray(np.median(rows, axis=0))
