"""ASHA: early stopping of trials at rungs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid_tune.config.train import COSINE_SCHEDULES

__all__ = ["NO_RUNGS", "Asha", "Rungs", "rung_epochs", "warmup_epochs"]

_Costs = tuple[float, ...]


def rung_epochs(grace: int, factor: int, num_epochs: int) -> tuple[int, ...]:
    """Return the epochs at which trials are compared: grace, grace * factor, ... below the full length.

    Args:
        grace: First rung in epochs.
        factor: Reduction factor, 2 or more.
        num_epochs: Full length in epochs.
    """
    levels = []
    level = grace
    while level < num_epochs:
        levels.append(level)
        level *= factor
    return tuple(levels)


def warmup_epochs(values: Mapping[str, Any]) -> int:
    """Return the epochs of the warm-up of a spec, whose values are given by dotted key; 0 if it is in steps."""
    if values.get("train.optim.warmup_steps") is not None:
        return 0
    key = "warmup_epochs" if values["train.optim.warmup_method"] in COSINE_SCHEDULES else "warmup_iters"
    return int(values[f"train.optim.{key}"])


@dataclass(frozen=True)
class Rungs:
    """Rungs that are the same epochs after the warm-up of each trial.

    Attributes:
        levels: Epochs of the rungs of a trial with the shortest warm-up.
        warmup: Epochs of that warm-up; None for the same rungs for all trials.
    """

    levels: tuple[int, ...] = ()
    warmup: int | None = None

    def delay(self, values: Mapping[str, Any]) -> int:
        """Return the epochs by which the rungs of a trial are later than those of the shortest warm-up.

        Args:
            values: Values of the trial's spec by dotted key.
        """
        return 0 if self.warmup is None else warmup_epochs(values) - self.warmup

    def epochs(self, values: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the epochs of a trial's rungs, as far as it reaches them; for `values` see `delay`."""
        delay, last = self.delay(values), values["train.num_epochs"]
        return tuple(level + delay for level in self.levels if 0 < level + delay < last)


NO_RUNGS = Rungs()


class Asha:
    """Asynchronous successive halving in its stopping form (Li et al., MLSys 2020).

    A trial that reaches a rung is stopped if its value is below the best 1/factor quantile of the values that were
    recorded at this rung before. With further objectives, only the values of trials that cost no more in any of them
    count, so that expensive models do not prune cheap ones. The same values in the same order give the same decisions.

    Args:
        levels: Epochs of the rungs.
        factor: One in this many trials continues at each rung.
    """

    def __init__(self, levels: tuple[int, ...], factor: int) -> None:
        self.levels = frozenset(levels)
        self._quantile = 1 - 1 / factor
        self._recorded: dict[int, list[float]] = {level: [] for level in levels}
        self._costs: dict[int, list[_Costs]] = {level: [] for level in levels}

    def should_continue(self, run: str, epoch: int, value: float, costs: _Costs = ()) -> bool:
        """Record a value at a rung, and return whether the trial continues.

        Epochs between rungs and values that are not finite are not recorded, and the trial continues.

        Args:
            run: Name of the trial's run.
            epoch: 1-based epoch.
            value: Score, larger is better.
            costs: Values of the further objectives, smaller is better, in the same order for all trials.
        """
        if epoch not in self.levels or not math.isfinite(value):
            return True
        comparable = self._recorded[epoch]
        if costs:
            comparable = [
                other
                for other, other_costs in zip(comparable, self._costs[epoch], strict=True)
                if all(other_cost <= cost for other_cost, cost in zip(other_costs, costs, strict=True))
            ]
        cutoff = np.quantile(comparable, self._quantile) if comparable else -math.inf
        self._recorded[epoch].append(value)
        self._costs[epoch].append(costs)
        return bool(value >= cutoff)
