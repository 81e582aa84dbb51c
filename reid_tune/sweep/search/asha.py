"""Early stopping."""

import math

import numpy as np

__all__ = ["Asha", "rungs"]


def rungs(grace: int, factor: int, num_epochs: int) -> tuple[int, ...]:
    """Epochs at which trials are compared: grace, grace * factor, ... below the full length."""
    levels = []
    level = grace
    while level < num_epochs:
        levels.append(level)
        level *= factor
    return tuple(levels)


class Asha:
    """Asynchronous successive halving in its stopping form (Li et al., MLSys 2020).

    A trial that reaches a rung is stopped if its value is below the best 1/factor quantile of the values recorded at
    this rung before. Deterministic: the same values in the same order give the same decisions.
    """

    def __init__(self, levels: tuple[int, ...], factor: int) -> None:
        self.levels = frozenset(levels)
        self._quantile = 1 - 1 / factor
        self._recorded: dict[int, list[float]] = {level: [] for level in levels}

    def goes_on(self, epoch: int, value: float) -> bool:
        """Record a value, larger is better, and decide; epochs between rungs and NaN change nothing."""
        if epoch not in self.levels or not math.isfinite(value):
            return True
        recorded = self._recorded[epoch]
        cutoff = np.quantile(recorded, self._quantile) if recorded else -math.inf
        recorded.append(value)
        return bool(value >= cutoff)
