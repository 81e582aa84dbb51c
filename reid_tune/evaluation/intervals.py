"""95 % bootstrap intervals of means over queries; the identities are resampled, with all their queries."""

import numpy as np

from reid_tune.errors import InputError

__all__ = ["interval", "paired_interval"]


def interval(values: np.ndarray, identities: np.ndarray, seed: int = 0, repeats: int = 1000) -> tuple[float, float]:
    """95 % interval of the mean of `values` [m], one value per query, with the queries' `identities` [m] as integers.

    Queries of one identity resemble each other; resampling single queries would make the interval too narrow.

    Returns:
        The 2.5 and 97.5 percentiles of the resampled means.

    Raises:
        InputError: the array is empty, or the numbers of values and identities differ.
    """
    if not len(values) or len(values) != len(identities):
        raise InputError(
            f"an interval needs one identity per value, but there are {len(values)} values and {len(identities)}"
            " identities; give the queries with a match."
        )
    _, member = np.unique(identities, return_inverse=True)
    sums, sizes = np.bincount(member, weights=values), np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(sizes), size=(repeats, len(sizes)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def paired_interval(
    a: np.ndarray, b: np.ndarray, identities: np.ndarray, seed: int = 0, repeats: int = 1000
) -> tuple[float, float]:
    """95 % interval of the mean of a - b, two values [m] for the same queries, see `interval`.

    Raises:
        InputError: as in `interval`, or a and b have different lengths.
    """
    if len(a) != len(b):
        raise InputError(
            f"a paired interval needs two values per query, but there are {len(a)} and {len(b)}; give the same queries."
        )
    return interval(np.asarray(a) - np.asarray(b), identities, seed, repeats)
