"""The importance of each searched key: its share in the variation of the predicted score over the space."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reid_tune.errors import InputError
from reid_tune.journal.state import SweepState
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.kernel import Points
from reid_tune.search.recorded_trials import RecordedTrials, ended_trials
from reid_tune.search.trial_model import TrialModel

__all__ = ["MIN_TRIALS", "Importances", "KeyImportance", "PairImportance", "estimate_importances", "find_importances"]

MIN_TRIALS = 8  # ended trials with a score below which no key stands out from noise
_CONFIGURATIONS = 256  # in each block of the design; a power of two for Sobol's sequence
_PAIRED_KEYS = 5  # the most important ones
_INTERVAL = 0.05, 0.95
# A key is clear if its share is above 5 %, and if the trials determine more than half of its part of the variance:
# without the second condition, keys that have not been explored would be clear, without the first, tiny ones.
_LEAST_SHARE, _LEAST_KNOWN = 0.05, 0.5


@dataclass(frozen=True)
class KeyImportance:
    """Shares of a key in the variance of the score.

    Attributes:
        key: Dotted key of the spec.
        total: Share in which the key takes part, alone or with others (Sobol's total index).
        low: Lower end of the 90 % interval of `total`.
        high: Upper end of it.
        alone: Share of the key alone (Sobol's first-order index).
        is_clear: Whether it stands out from noise.
    """

    key: str
    total: float
    low: float
    high: float
    alone: float
    is_clear: bool


@dataclass(frozen=True)
class PairImportance:
    """Shares of two keys.

    Attributes:
        keys: Both keys.
        together: Share of both keys, alone and in their interaction.
        interaction: Share of their interaction (Sobol's second-order index).
        low: Lower end of the 90 % interval of `interaction`.
        high: Upper end of it.
    """

    keys: tuple[str, str]
    together: float
    interaction: float
    low: float
    high: float


@dataclass(frozen=True)
class Importances:
    """Decomposition of the variance of the score at full length, when each range is drawn from evenly.

    Attributes:
        spread: Standard deviation of the score over the space, as a fraction.
        keys: Searched keys, the most important first.
        pairs: Pairs of the five most important keys, the strongest together first.
    """

    spread: float
    keys: Sequence[KeyImportance]
    pairs: Sequence[PairImportance]

    @property
    def totals(self) -> dict[str, float]:
        """Total share by key."""
        return {importance.key: importance.total for importance in self.keys}

    def as_dict(self) -> dict[str, Any]:
        """Return the importances as plain data."""
        return asdict(self)


def find_importances(state: SweepState) -> Importances | None:
    """Return the importances by the model of the ended trials, at whichever rung they ended.

    Returns:
        None with fewer than MIN_TRIALS trials with a score, or where this version cannot read the space.
    """
    try:
        recorded = RecordedTrials(state)
    except InputError:
        return None
    trials = ended_trials(state)
    model = recorded.model(trials)
    if model is None or sum(recorded.observe(trial).is_scored for trial in trials) < MIN_TRIALS:
        return None
    return estimate_importances(recorded.encoding, model)


def estimate_importances(encoding: SpaceEncoding, model: TrialModel) -> Importances | None:
    """Return the importances in the functions that the model's observations allow; None without a searched key.

    The coordinates of the unit cube are independent and uniform: each value of a choice or of integers has the same
    probability, and logarithmic ranges are uniform in the logarithm. A key takes part with the coordinates of all its
    ranges and elements, and has no effect where its conditions do not hold. Constraints are left out, because under
    them the keys would not be independent.

    The estimates are those of Saltelli et al. (2010, "Variance based sensitivity analysis of model output") and Jansen
    over a fixed scrambled Sobol sequence; shares are medians over the functions.
    """
    from scipy.stats import qmc  # The import takes half a second, for which a resumed sweep does not wait.

    groups = encoding.coordinates_by_key()
    if not groups:
        return None
    keys, random = list(groups), np.random.default_rng(0)
    cube = qmc.Sobol(2 * encoding.dimensions, rng=random).random(_CONFIGURATIONS)
    first, second = np.split(cube, 2, axis=1)

    def points(exchanged: Sequence[Sequence[str]]) -> Points:
        """Return the configurations of `first`, in a block for each group of keys with those keys as in `second`."""
        blocks = []
        for block in exchanged:
            columns = [column for key in block for column in groups[key]]
            positions = first.copy()
            positions[:, columns] = second[:, columns]
            blocks += [encoding.configuration(position) for position in positions]
        return encoding.points(blocks, [0.0] * len(blocks))

    singles: list[Sequence[str]] = [(), keys, *([key] for key in keys)]
    single_points = points(singles)
    shares = _Shares(model.predict(single_points)[0].reshape(1, len(singles), -1), len(keys))
    leading = np.sort(np.argsort(-shares.totals[0], kind="stable")[:_PAIRED_KEYS]).tolist()
    pairs = list(itertools.combinations(leading, 2))
    all_points = single_points.join(points([[keys[one], keys[other]] for one, other in pairs]))
    expected, drawn = model.draw(all_points, random)
    values = np.concatenate([expected[None], drawn]).reshape(1 + len(drawn), len(singles) + len(pairs), -1)
    return _summarize(_Shares(values, len(keys)), keys, pairs)


class _Shares:
    """Shares of the variance, for each of f functions.

    Args:
        values: Values [f, blocks, n] at the first configurations, at the second ones, with each key exchanged, and with
            pairs of keys exchanged.
        keys: Number of keys.
    """

    def __init__(self, values: np.ndarray, keys: int) -> None:
        values = values - values[:, :2].mean(axis=(1, 2), keepdims=True)
        self._first, self._second = values[:, 0], values[:, 1]
        self._singles, self._pairs = values[:, 2 : 2 + keys], values[:, 2 + keys :]
        self.variances = (values[:, :2] ** 2).mean(axis=(1, 2)) + 1e-30
        self.totals = ((self._singles - self._first[:, None]) ** 2).mean(axis=2) / 2 / self.variances[:, None]
        self.alone = self._covariances(self._singles - self._first[:, None])

    def interactions(self, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return the shares [f, pairs] of the interactions of two keys."""
        one, other = ([pair[side] for pair in pairs] for side in (0, 1))
        return self._covariances(self._pairs - self._singles[:, one] - self._singles[:, other] + self._first[:, None])

    def _covariances(self, differences: np.ndarray) -> np.ndarray:
        return np.asarray((differences * self._second[:, None]).mean(axis=2) / self.variances[:, None])


def _summarize(shares: _Shares, keys: Sequence[str], pairs: Sequence[tuple[int, int]]) -> Importances:
    """Return the importances by shares in the expected function and in the drawn ones."""
    totals, low, high = _median_and_interval(np.minimum(shares.totals[1:], 1))  # An estimate may exceed 1.
    alone = np.clip(np.median(shares.alone[1:], axis=0), 0, totals)
    parts = shares.totals * shares.variances[:, None]
    is_clear = (low > _LEAST_SHARE) & (parts[0] > _LEAST_KNOWN * parts[1:].mean(axis=0))
    columns = (column.tolist() for column in (totals, low, high, alone, is_clear))
    importances = [KeyImportance(*row) for row in zip(keys, *columns, strict=True)]
    interactions = [np.maximum(column, 0).tolist() for column in _median_and_interval(shares.interactions(pairs)[1:])]
    together = [
        PairImportance(
            (keys[one], keys[other]), min(1.0, float(alone[one] + alone[other]) + share), share, low_end, high_end
        )
        for (one, other), share, low_end, high_end in zip(pairs, *interactions, strict=True)
    ]
    return Importances(
        float(np.sqrt(np.median(shares.variances[1:]))),
        sorted(importances, key=lambda importance: -importance.total),
        sorted(together, key=lambda importance: -importance.together),
    )


def _median_and_interval(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, median, high = np.quantile(shares, [_INTERVAL[0], 0.5, _INTERVAL[1]], axis=0)
    return median, low, high
