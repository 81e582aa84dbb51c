"""Difference of two models over repeated trainings, with an interval from a two-level bootstrap."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from reid_tune.errors import InputError

__all__ = ["Difference", "mean_difference", "nested_interval"]

RepeatValues = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """Mean difference over repeats with its 95 % interval, in the unit of the values (fractions of 1 for mAP)."""

    mean: float
    low: float
    high: float
    repeats: int

    @property
    def is_significant(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0

    def as_dict(self) -> dict[str, float]:
        """The fields by name, for a log or a report."""
        return asdict(self)


def mean_difference(repeats: Sequence[RepeatValues], seed: int = 0, draws: int = 1000) -> Difference:
    """Mean over the repeats of each repeat's mean over its queries, see `nested_interval`."""
    low, high = nested_interval(repeats, seed, draws)
    mean = float(np.mean([np.mean(values) for values, _ in repeats]))
    return Difference(mean, low, high, len(repeats))


def nested_interval(repeats: Sequence[RepeatValues], seed: int = 0, draws: int = 1000) -> tuple[float, float]:
    """95 % percentile interval of the mean over repeats of each repeat's mean over queries.

    Each draw takes repeats with replacement, and in each of them its identities with replacement, with all their
    queries (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). One repeat gives the
    interval of `evaluation.intervals`. The variance between n repeats is estimated as about (n - 1) / n of its true
    value, the variance between identities as up to twice its own: with two or three repeats whose results differ
    much, the interval is too narrow.

    Args:
        repeats: For each repeat the differences of its queries [m_j] and their identities [m_j] as integers.

    Raises:
        InputError: the list of repeats is empty, or one has no values or different numbers of values and identities.
    """
    for values, identities in repeats:
        if not len(values) or len(values) != len(identities):
            raise InputError(
                f"a difference needs one identity per query, but a repeat has {len(values)} values and"
                f" {len(identities)} identities; give the queries with a match."
            )
    if not repeats:
        raise InputError("a difference needs at least one repeat of both models; none was given.")
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(repeats), size=(draws, len(repeats)))
    means = np.empty(chosen.shape)
    for number, (values, identities) in enumerate(repeats):
        drawn_here = chosen == number
        means[drawn_here] = _resampled_means(values, identities, int(drawn_here.sum()), rng)
    low, high = np.percentile(means.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _resampled_means(values: np.ndarray, identities: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    _, member = np.unique(identities, return_inverse=True)
    sums, sizes = np.bincount(member, weights=values), np.bincount(member)
    drawn = rng.integers(len(sizes), size=(count, len(sizes)))
    return sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
