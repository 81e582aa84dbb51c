"""Difference of two models over repeated trainings, with an interval for seeds, validation splits and identities."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import stdtrit

from reid_tune.errors import InputError

__all__ = ["Difference", "mean_difference", "standard_error"]

RepeatValues = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """Mean difference over repeats with its interval, in the unit of the values (fractions of 1 for mAP).

    The bounds are None with one repeat, which does not show how much trainings differ by chance.
    """

    mean: float
    low: float | None
    high: float | None
    repeats: int

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"an interval has two bounds or none, but its bounds are {self.low} and {self.high}")

    @property
    def is_significant(self) -> bool:
        """Whether there is an interval, and all of it is above 0."""
        return self.low is not None and self.low > 0

    def as_dict(self) -> dict[str, float | None]:
        """The fields by name, for a log or a report."""
        return asdict(self)


def mean_difference(repeats: Sequence[RepeatValues], error: float = 0.05) -> Difference:
    """Mean over the repeats of each repeat's mean over its queries, with its interval.

    The interval is mean +- t * `standard_error`, with Student's t for one degree of freedom less than repeats.

    Args:
        repeats: For each repeat the differences of its queries [m_j] and their identities [m_j] as integers, which
            mean the same person in all repeats.
        error: Probability that the interval misses the true difference: 0.05 for one of 95 %.

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
    mean = float(np.mean([np.mean(values) for values, _ in repeats]))
    if len(repeats) == 1:
        return Difference(mean, None, None, 1)
    margin = float(stdtrit(len(repeats) - 1, 1 - error / 2)) * standard_error(repeats)
    return Difference(mean, mean - margin, mean + margin, len(repeats))


def standard_error(repeats: Sequence[RepeatValues]) -> float:
    """Standard error of the mean over two or more repeats, clustered by repeat and by identity.

    The variance between n repeats over n has the chance of seeds and of validation splits. It takes the repeats to be
    independent, but validation splits share identities, and a model that is better for one person is so in each of
    them. Two-way clustering (Cameron, Gelbach and Miller 2011) adds the covariance of each identity's contributions to
    different repeats. An estimate below 0 counts as 0.
    """
    means = np.array([np.mean(values) for values, _ in repeats])
    people, member = np.unique(np.concatenate([identities for _, identities in repeats]), return_inverse=True)
    contributions = np.zeros((len(repeats), len(people)))
    starts = np.cumsum([len(values) for values, _ in repeats])[:-1]
    for row, mean, (values, _), members in zip(contributions, means, repeats, np.split(member, starts), strict=True):
        row += np.bincount(members, weights=(values - mean) / len(values), minlength=len(people))
    shared = np.sum(contributions.sum(axis=0) ** 2) - np.sum(contributions**2)
    between = means.var(ddof=1) / len(means)
    return float(np.sqrt(between + max(0.0, shared) / len(means) ** 2))
