"""What Optuna is told of a trial that has ended."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from optuna.trial import TrialState

__all__ = ["TrialOutcome", "outcome_of"]

# Of trials that cannot be trained, the worst last.
_VIOLATIONS = {"non_finite": 2.0, "out_of_memory": 3.0}


class TrialOutcome(NamedTuple):
    """An end in Optuna's terms; `violation` is that of the only constraint, and above 0 for what cannot be trained."""

    end: TrialState
    values: list[float] | None
    epochs: Mapping[int, float]
    violation: float = -1.0


def outcome_of(
    state: str, value: float | None, epochs: Mapping[int, float], costs: Sequence[float], failure: str
) -> TrialOutcome:
    """The lesson of a trial that finished, was stopped or failed; see `Study.tell`."""
    if state == "finished" and value is not None and math.isfinite(value):
        return TrialOutcome(TrialState.COMPLETE, [value, *costs], {} if costs else epochs)
    if state == "stopped" and costs:
        # Optuna orders pruned trials by their values only where there is one objective, and else raises; by violations
        # it does. So TPE ranks them by the epoch, then by the score there, behind all complete ones.
        last, score = max(epochs.items(), default=(0, 0.0))
        return TrialOutcome(TrialState.PRUNED, None, {}, 1 / (1 + last + score))
    if state == "stopped":
        return TrialOutcome(TrialState.PRUNED, None, epochs)
    if failure in _VIOLATIONS:
        return TrialOutcome(TrialState.PRUNED, None, {}, _VIOLATIONS[failure])
    return TrialOutcome(TrialState.FAIL, None, {})
