"""Early stopping."""

import math

import numpy as np

__all__ = ["Asha", "rung_epochs"]

Costs = tuple[float, ...]


def rung_epochs(grace: int, factor: int, num_epochs: int) -> tuple[int, ...]:
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
    this rung before. With further objectives only those count that cost no more in any of them, so that what is cheap
    is not stopped by what is dear. Deterministic: the same values in the same order give the same decisions.
    """

    def __init__(self, levels: tuple[int, ...], factor: int) -> None:
        self.levels = frozenset(levels)
        self._quantile = 1 - 1 / factor
        self._recorded: dict[int, list[float]] = {level: [] for level in levels}
        self._costs: dict[int, list[Costs]] = {level: [] for level in levels}

    def should_continue(self, epoch: int, value: float, costs: Costs = ()) -> bool:
        """Record a value, larger is better, and decide; epochs between rungs and NaN change nothing.

        Args:
            costs: Of the further objectives, smaller is better, of all trials in the same order.
        """
        if epoch not in self.levels or not math.isfinite(value):
            return True
        known = zip(self._recorded[epoch], self._costs[epoch], strict=True)
        rivals = [rival for rival, theirs in known if all(a <= b for a, b in zip(theirs, costs, strict=True))]
        cutoff = np.quantile(rivals, self._quantile) if rivals else -math.inf
        self._recorded[epoch].append(value)
        self._costs[epoch].append(costs)
        return bool(value >= cutoff)
