"""Squared Euclidean distances of L2-normalised rows, in blocks, where equal rows have equal distances."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["BLOCK", "Rows", "distance_blocks", "full_precision", "pair_distances", "tie_free"]

BLOCK = 256


@dataclass(frozen=True)
class Rows:
    """n feature rows as u <= n distinct ones, each with length 1.

    A product of matrices may round the same sum differently at another place of the result, so that images which are
    copies of each other would no longer tie. Every distinct row is therefore multiplied once.
    """

    distinct: Tensor  # [u, d] float32
    position: Tensor  # [n] int64: the distinct row of each row

    @classmethod
    def of(cls, features: np.ndarray, device: torch.device | str = "cpu") -> "Rows":
        """Rows from float32 features of shape [n, d], none all zero."""
        features = np.ascontiguousarray(features) + np.float32(0)  # -0.0 and 0.0 have different bytes
        whole = features.view(np.dtype((np.void, features.itemsize * features.shape[1]))).ravel()
        _, first, position = np.unique(whole, return_index=True, return_inverse=True)
        if len(first) == len(features):
            first = position = np.arange(len(features))
        # The largest value first: a square of a float32 may overflow or vanish.
        values = torch.from_numpy(features[first]).to(device)
        values = torch.nn.functional.normalize(values / values.abs().amax(1, keepdim=True), dim=1)
        return cls(values, torch.from_numpy(position).to(device))

    def __len__(self) -> int:
        return len(self.position)


def distance_blocks(rows: Rows, columns: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (indices of some rows [b], their distances to all columns [b, n] float32 in 0..4) until all rows were seen.

    A block lives until the next one, which takes its memory; its receiver may change it.
    """
    order = rows.position.argsort(stable=True)
    held = torch.bincount(rows.position, minlength=len(rows.distinct)).cumsum(0).tolist()
    transposed = columns.distinct.T.contiguous()
    buffer = torch.empty(min(BLOCK, len(rows.distinct)), transposed.shape[1], device=transposed.device)
    repeated = len(columns.distinct) < len(columns)
    for start in range(0, len(rows.distinct), BLOCK):
        part = rows.distinct[start : start + BLOCK]
        block = torch.mm(part, transposed, out=buffer[: len(part)]).mul_(-2).add_(2).clamp_(min=0)
        members = order[held[start - 1] if start else 0 : held[start + len(part) - 1]]
        if repeated:
            block = block[:, columns.position]
        if len(members) == len(part):
            yield members, block
            continue
        for some in members.split(BLOCK):
            yield some, block[rows.position[some] - start]


def pair_distances(rows: Rows, left: Tensor, right: Tensor) -> Tensor:
    """Distances [m] between the rows with the indices `left` [m] and `right` [m]."""
    parts = zip(rows.position[left].split(2048), rows.position[right].split(2048), strict=True)
    select = rows.distinct.index_select
    products = [torch.linalg.vecdot(select(0, a), select(0, b)) for a, b in parts]
    return torch.cat(products).mul_(-2).add_(2).clamp_(min=0)


def tie_free(values: Tensor) -> Tensor:
    """int64 keys that order each row of float32 `values` [b, n] by (value, column).

    Of negative values a row may have only one; -0.0 counts as less than 0.0.
    """
    bits = values.contiguous().view(torch.int32).to(torch.int64)
    return (bits << 32) + torch.arange(values.shape[1], device=values.device)


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply in true float32 and without gradients, whatever a training around has chosen."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
