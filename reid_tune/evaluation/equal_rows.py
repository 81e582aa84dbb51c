"""Detection of equal feature rows, by hash keys and comparison of their values."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reid_tune.evaluation.parallel import map_in_threads

__all__ = ["concatenate_rows"]

_ROWS = 256  # copied or compared at a time


def concatenate_rows(parts: Sequence[np.ndarray], device: torch.device | str) -> tuple[Tensor, np.ndarray]:
    """Copy the rows of several float32 arrays to a device, block by block, and find equal rows.

    Returns:
        Values [n, d] on the device, without -0.0, and the index of the first equal row for each row, int64 [n].
    """
    blocks = [part[start : start + _ROWS] for part in parts for start in range(0, len(part), _ROWS)]
    ends = np.cumsum([len(block) for block in blocks])
    values = torch.empty(int(ends[-1]), parts[0].shape[1], device=device)
    keys = torch.empty(len(values), dtype=torch.int64, device=device)
    factors = _factors(values.shape[1]).to(device)

    def copy(number: int) -> None:
        block = np.add(blocks[number], np.float32(0), order="C")  # -0.0 and 0.0 have different bits
        rows = slice(ends[number] - len(block), ends[number])
        values[rows] = torch.from_numpy(block)
        keys[rows] = _keys(values[rows], factors)

    map_in_threads(copy, range(len(blocks)), device)
    return values, _first_alike(values, keys.cpu().numpy())


def _factors(dimension: int) -> Tensor:
    """Fixed odd numbers int64 [dimension]."""
    limits = np.iinfo(np.int64)
    return torch.from_numpy(np.random.default_rng(0).integers(limits.min, limits.max, dimension) | 1)


def _keys(values: Tensor, factors: Tensor) -> Tensor:
    """Sum of each row's bits times the factors, modulo 2 ** 64, int64 [n]: exact in any order of summation.

    Equal rows have equal keys; different rows almost never do.
    """
    return values.view(torch.int32).to(torch.int64).mul_(factors).sum(1)


def _first_alike(values: Tensor, keys: np.ndarray) -> np.ndarray:
    rows = np.arange(len(keys))
    first = rows.copy()
    while len(rows):  # a second pass is needed only if different rows have equal keys
        _, start, group = np.unique(keys[rows], return_index=True, return_inverse=True)
        leader = rows[start][group]
        later = leader != rows
        rows, leader = rows[later], leader[later]
        alike = _equal(values, rows, leader)
        first[rows[alike]] = leader[alike]
        rows = rows[~alike]
    return first


def _equal(values: Tensor, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether each row `left` [m] equals the row `right` [m], bool [m]."""
    pairs = torch.from_numpy(np.stack([left, right])).to(values.device)
    return torch.cat([(values[a] == values[b]).all(1) for a, b in pairs.split(_ROWS, 1)]).cpu().numpy()
