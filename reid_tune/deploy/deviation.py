"""How far two sets of embeddings of the same crops are apart."""

from dataclasses import dataclass

import numpy as np

__all__ = ["NEIGHBOURS", "Deviation", "measure_deviation", "same_neighbours"]

NEIGHBOURS = 10


@dataclass(frozen=True)
class Deviation:
    """The worst over all crops; NaN or infinite where an embedding is zero or not finite."""

    cosine: float  # the smallest between the two embeddings of a crop
    difference: float  # the largest of any value, as a share of the largest value
    shift: float  # the largest of the cosine between two crops


def measure_deviation(wanted: np.ndarray, found: np.ndarray) -> Deviation:
    """Compare embeddings [n, D], in float64."""
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(wanted - found).max() / np.abs(wanted).max()
    left, right = _unit(wanted), _unit(found)
    shift = np.abs(left @ left.T - right @ right.T).max()
    return Deviation(float((left * right).sum(1).min()), float(difference), float(shift))


def same_neighbours(wanted: np.ndarray, found: np.ndarray, tie: float) -> float:
    """Share of the crops whose 10 nearest others, all with fewer than 11 crops, are the same in the same order.

    Args:
        wanted, found: Embeddings [n, D], n >= 1.
        tie: Two neighbours whose cosines differ by this at most may change places.
    """
    # A crop itself, always the nearest, stays in, so that a single one has a neighbour.
    similar, others = (rows @ rows.T for rows in map(_unit, (wanted, found)))
    chosen = np.argsort(-others, axis=1, kind="stable")[:, : NEIGHBOURS + 1]
    nearest = -np.sort(-similar, axis=1)[:, : NEIGHBOURS + 1]
    near = np.abs(np.take_along_axis(similar, chosen, 1) - nearest) <= tie
    return float(near.all(axis=1).mean())


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
