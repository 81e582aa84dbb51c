"""ASHA in its promotion form: trials pause at rungs, and the best of each rung continue."""

import math
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Promotion"]

_Costs = tuple[float, ...]


class _Score(NamedTuple):
    value: float
    costs: _Costs


class Promotion:
    """Asynchronous successive halving in its promotion form (Li et al., MLSys 2020).

    A trial may be promoted at a rung with `factor` scores or more if it is among the best 1/factor of them. A trial to
    which this applies when it reaches the rung continues at once, the others pause. With further objectives, a trial is
    compared only with those that cost no more in any of them, and the best of these may always be promoted. Equal
    scores rank in the order in which they were recorded. The same scores in the same order give the same decisions.

    Args:
        levels: Epochs of the rungs.
        factor: One in this many trials continues at each rung.
    """

    def __init__(self, levels: tuple[int, ...], factor: int) -> None:
        self.factor = factor
        self._scores: dict[int, dict[str, _Score]] = {level: {} for level in levels}

    def should_continue(self, run: str, epoch: int, value: float, costs: _Costs = ()) -> bool:
        """Record a value at a rung, and return whether the trial continues; otherwise it pauses.

        Epochs between rungs and values that are not finite are not recorded, and the trial continues.

        Args:
            run: Name of the trial's run.
            epoch: 1-based epoch.
            value: Score, larger is better.
            costs: Values of the further objectives, smaller is better, in the same order for all trials.
        """
        if epoch not in self._scores or not math.isfinite(value):
            return True
        self._scores[epoch][run] = _Score(value, costs)
        return self._is_promotable(run, epoch)

    def next_run(self, paused: Iterable[str]) -> str | None:
        """Return the trial to promote, the best one of the highest rung; None if none may be promoted.

        Args:
            paused: Names of trials that are paused at a rung.
        """
        promotable = [run for run in paused if self._is_promotable(run, self._level(run))]
        return min(
            promotable, key=lambda run: (-self._level(run), self._rank(run, self._level(run)), run), default=None
        )

    def ranked(self, paused: Iterable[str]) -> list[str]:
        """Return the trials that are paused at a rung, those first that the smallest share of their rung beats."""

        def key(run: str) -> tuple[float, int, str]:
            better, compared = self._rank(run, self._level(run))
            return better / compared, -self._level(run), run

        return sorted(paused, key=key)

    def _level(self, run: str) -> int:
        """Return the last rung that a trial has reached."""
        return max(level for level, scores in self._scores.items() if run in scores)

    def _is_promotable(self, run: str, level: int) -> bool:
        better, compared = self._rank(run, level)
        return len(self._scores[level]) >= self.factor and better < max(1, compared // self.factor)

    def _rank(self, run: str, level: int) -> tuple[int, int]:
        """Return the number of trials at a rung that are better than one, and of those that it is compared with."""
        value, costs = self._scores[level][run]
        better = compared = 0
        is_earlier = True
        for other, score in self._scores[level].items():
            if other == run:
                is_earlier = False
            elif any(other_cost > cost for other_cost, cost in zip(score.costs, costs, strict=True)):
                continue
            elif score.value > value or (score.value == value and is_earlier):
                better += 1
            compared += 1
        return better, compared
