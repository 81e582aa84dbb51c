"""The target of a search: the scores at which it ends."""

from collections.abc import Mapping

from reid_tune.journal.state import RunState, SweepState
from reid_tune.search_space.schema import ScoreName

__all__ = ["find_target_trial"]


def find_target_trial(state: SweepState, target: Mapping[ScoreName, float]) -> RunState | None:
    """Return the first full-length trial that has reached every score of a target; None without one or a target.

    Args:
        state: State of the sweep.
        target: Scores as fractions, by name of the metric.
    """
    full = [trial for trial in state.trials if trial.state == "finished"] if target else []
    return next(
        (
            trial
            for trial in sorted(full, key=lambda trial: (trial.ended, trial.number))
            if all((trial.last(metric) or 0.0) >= score for metric, score in target.items())
        ),
        None,
    )
