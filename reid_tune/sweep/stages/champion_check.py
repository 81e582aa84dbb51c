"""Promotion check: one comparison of the winner's recipe with that of the champion, in repeats that chose nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reid_tune.config.load import with_parameters
from reid_tune.evaluation.choice import expected_losses
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import RunState, SweepState
from reid_tune.report.formatting import format_interval
from reid_tune.search.race import champion_trial
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.compared_trial import ComparedTrial, compared_trial
from reid_tune.tables import format_count
from reid_tune.tracking.champion_comparison import Verdict

__all__ = ["check_against_champion", "find_champion", "with_champion"]


def find_champion(sweep: SweepConfig, state: SweepState, trials: Sequence[RunState]) -> RunState | None:
    """Return the champion's recipe as a trial, the one of these trials that has the same recipe, or None.

    Args:
        sweep: The sweep.
        state: State of its log, which has the champion.
        trials: Trials that are repeated anyway.
    """
    champion = champion_trial(state.champion) if state.champion else None
    if champion is None:
        return None
    recipe = with_parameters(sweep.experiment, champion.parameters, champion.name)
    same = (trial for trial in trials if with_parameters(sweep.experiment, trial.parameters, trial.name) == recipe)
    return next(same, champion)


def with_champion(sweep: SweepConfig, state: SweepState, trials: Sequence[RunState]) -> list[RunState]:
    """Return trials that are repeated, with the champion unless there are none or one of them has its recipe."""
    champion = find_champion(sweep, state, trials) if trials else None
    return [*trials, champion] if champion is not None and champion not in trials else list(trials)


def check_against_champion(
    sweep: SweepConfig, journal: Journal, winner: ComparedTrial, trials: Sequence[RunState], repeats: Sequence[int]
) -> dict[str, Any] | None:
    """Return the result of the check as plain data; None if no version had the alias.

    Two contestants, trial 0 and the selected trial, share the error of 2.5 %, as the better one is compared.

    Args:
        sweep: The sweep.
        journal: Event log and state.
        winner: Winner with its repeats.
        trials: The contestants.
        repeats: Numbers of the repeats.
    """
    record = journal.state.champion
    if record is None or (record.version is None and not record.problem):
        return None
    result: dict[str, Any] = {"version": record.version, "runs": [], "values": []}
    champion = find_champion(sweep, journal.state, trials)
    if champion is None:
        return result | {"verdict": Verdict(record.version, False, record.problem).as_dict()}
    compared = compared_trial(sweep, journal, champion, repeats)
    if champion.name == winner.trial.name:
        reason = f"its recipe is that of version {record.version}, so a comparison of recipes cannot prefer it"
        verdict = Verdict(record.version, False, reason)
    elif len(compared.runs) < len(repeats):
        verdict = Verdict(
            record.version, False, f"a repeat of version {record.version} failed: see its log in confirm/"
        )
    else:
        contestants = sum(trial is not champion for trial in trials)
        verdict = _decide(sweep, winner, compared, record.version or 0, contestants)
    runs = [run.name for run in compared.runs]
    return result | {"runs": runs, "values": compared.values, "verdict": verdict.as_dict()}


def _decide(
    sweep: SweepConfig, winner: ComparedTrial, champion: ComparedTrial, version: int, contestants: int
) -> Verdict:
    """Return whether the winner may replace the champion.

    It may if it is proven better. With cost objectives the cheaper of the two is preferred if it is expected to lose at
    most `confirm.margin`.
    """
    difference = winner.difference_to(champion, error=0.05 / contestants)
    level = f"{100 - 5 / contestants:g} % interval"
    repeats = format_count(difference.repeats, "repeat")
    gain = f"{format_interval(difference.as_dict())} points of {winner.metric} against version {version} in {repeats}"
    gain += f", {level} as either of two trials could have won" if contestants > 1 else f", {level}"
    losses = expected_losses(np.array([winner.values, champion.values]))
    is_within = losses <= sweep.file.confirm.margin / 100
    costs = [[trial.costs[name] for name in sweep.file.costs] for trial in (winner.trial, champion.trial)]
    pairs = zip(sweep.file.costs, *costs, strict=True)
    listing = ", ".join(f"{name} {cost:.4g} instead of {other:.4g}" for name, cost, other in pairs if cost != other)
    if costs[0] < costs[1] and is_within[0]:
        reason = f"it costs less ({listing}) and is expected to lose at most confirm.margin: {gain}"
        return Verdict(version, True, reason, difference)
    if costs[1] < costs[0] and is_within[1]:
        reason = f"version {version} costs less and is expected to lose at most confirm.margin ({listing}): {gain}"
        return Verdict(version, False, reason, difference)
    reason = gain if difference.is_significant else f"it is not proven better: {gain}"
    return Verdict(version, difference.is_significant, reason, difference)
