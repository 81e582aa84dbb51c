"""Rows on a device, with those that are copies of earlier ones: found by keys, confirmed value by value."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reid_tune.evaluation.parallel import map_in_threads

__all__ = ["concatenate_rows"]

_ROWS = 256  # that are copied or compared at a time


def concatenate_rows(parts: Sequence[np.ndarray], device: torch.device | str) -> tuple[Tensor, np.ndarray]:
    """Copy the rows of several float32 arrays, one after the other, a block at a time.

    Returns:
        The values [n, d] on the device, without -0.0; and for each row the first one that equals it, int64 [n].
    """
    blocks = [part[start : start + _ROWS] for part in parts for start in range(0, len(part), _ROWS)]
    ends = np.cumsum([len(block) for block in blocks])
    values = torch.empty(int(ends[-1]), parts[0].shape[1], device=device)
    keys = torch.empty(len(values), dtype=torch.int64, device=device)
    factors = _factors(values.shape[1]).to(device)

    def copy(number: int) -> None:
        block = np.add(blocks[number], np.float32(0), order="C")  # -0.0 and 0.0 have different bits
        place = slice(ends[number] - len(block), ends[number])
        values[place] = torch.from_numpy(block)
        keys[place] = _keys(values[place], factors)

    map_in_threads(copy, range(len(blocks)), device)
    return values, _first_alike(values, keys.cpu().numpy())


def _factors(dimension: int) -> Tensor:
    """Odd numbers int64 [dimension], the same ones every time."""
    limits = np.iinfo(np.int64)
    return torch.from_numpy(np.random.default_rng(0).integers(limits.min, limits.max, dimension) | 1)


def _keys(values: Tensor, factors: Tensor) -> Tensor:
    """The sum of each row's bits times the factors, modulo 2 ** 64, int64 [n]: exact in any order of summation.

    Equal rows have equal keys, unlike ones hardly ever.
    """
    return values.view(torch.int32).to(torch.int64).mul_(factors).sum(1)


def _first_alike(values: Tensor, keys: np.ndarray) -> np.ndarray:
    rows = np.arange(len(keys))
    first = rows.copy()
    while len(rows):  # more than once only where unlike rows have one key
        _, start, group = np.unique(keys[rows], return_index=True, return_inverse=True)
        leader = rows[start][group]
        later = leader != rows
        rows, leader = rows[later], leader[later]
        alike = _equal(values, rows, leader)
        first[rows[alike]] = leader[alike]
        rows = rows[~alike]
    return first


def _equal(values: Tensor, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether the rows with the indices `left` [m] equal those with the indices `right` [m], bool [m]."""
    pairs = torch.from_numpy(np.stack([left, right])).to(values.device)
    return torch.cat([(values[a] == values[b]).all(1) for a, b in pairs.split(_ROWS, 1)]).cpu().numpy()
