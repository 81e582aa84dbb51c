"""Confirm: select a trial by a race on new seeds and validation splits; compare it with trial 0 and the champion."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from reid_tune.errors import RunFailedError
from reid_tune.evaluation.choice import choose
from reid_tune.evaluation.differences import Difference
from reid_tune.execution.fixed_runs import FixedRuns
from reid_tune.execution.run_source import ONE_CPU, ResourceRequest
from reid_tune.journal.events import CandidateSelected
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import RunState, repeat_number, trial_run
from reid_tune.search.budget import BudgetTracker
from reid_tune.search.race import find_baseline, first_proof_repeat, replay_race
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.champion_check import check_against_champion, with_champion
from reid_tune.sweep.stages.compared_trial import ComparedTrial, compared_trial

__all__ = ["RepeatLimit", "choose_winner", "confirm_sources"]


class RepeatLimit:
    """Tells whether the budget allows repeats, so that the trials that are compared have the same ones.

    Args:
        journal: Event log and state.
        budget_tracker: Tracker of the sweep's budget; None without a budget.

    Attributes:
        ended_by: Key of `budget` that has refused repeats last, None while none has.
    """

    def __init__(self, journal: Journal, budget_tracker: BudgetTracker | None = None) -> None:
        self.journal, self.budget_tracker = journal, budget_tracker
        self.ended_by: str | None = None

    def allows(self, repeat: int, trials: Sequence[RunState], reserved: Sequence[RunState] = ()) -> bool:
        """Return whether a repeat of some trials may begin; one that some of them have begun always may.

        Args:
            repeat: Number of the repeat.
            trials: Trials that are repeated.
            reserved: Trials that must have another repeat after that.
        """
        has_begun = any(trial.repeat(repeat) in self.journal.state.runs for trial in trials)
        if self.budget_tracker is None or has_begun:
            return True
        self.ended_by = self.budget_tracker.next_repeat_limit([*trials, *reserved])
        return self.ended_by is None


def confirm_sources(
    sweep: SweepConfig, journal: Journal, limit: RepeatLimit, resources: ResourceRequest = ONE_CPU
) -> Iterator[FixedRuns]:
    """Yield the rounds of the race, and then the repeats of the selected trial, of trial 0 and of the champion.

    The j-th repeat of a trial has the spec's training seed + j and validation seed + j. Those after the race have
    numbers that no candidate of the race may have.

    Args:
        sweep: Sweep after the search.
        journal: Event log and state; the end of the race is recorded there.
        limit: Limit of the budget.
        resources: Resources of each repeat.
    """
    while journal.state.selection is None:
        race = replay_race(sweep, journal.state)
        baseline, repeat = find_baseline(journal.state), race.rounds + 1
        proven = with_champion(sweep, journal.state, [trial for trial in (baseline, race.selected) if trial])
        if len(race.contestants) > 1 and limit.allows(repeat, race.contestants, proven):
            yield _repeats(sweep, journal, race.contestants, [repeat], resources)
        else:
            ended_by = limit.ended_by if len(race.contestants) > 1 else None
            number = race.selected.number if race.selected else None
            journal.emit(CandidateSelected(trial=number, rounds=race.rounds, ended_by=ended_by))
    limit.ended_by = None
    first, trials = first_proof_repeat(sweep), with_champion(sweep, journal.state, _compared_trials(journal))
    yield _repeats(
        sweep,
        journal,
        trials,
        range(first, first + sweep.file.confirm.repeats),
        resources,
        lambda run: repeat_number(run) == first or limit.allows(repeat_number(run), trials),
    )


def _repeats(
    sweep: SweepConfig,
    journal: Journal,
    trials: Sequence[RunState],
    repeats: Sequence[int],
    resources: ResourceRequest,
    may_begin: Callable[[str], bool] = lambda _: True,
) -> FixedRuns:
    train_seed, validation_seed = sweep.experiment.train.seed, sweep.experiment.dataset.validation_seed
    runs = {
        trial.repeat(repeat): {
            **trial.parameters,
            "train.seed": train_seed + repeat,
            "dataset.validation_seed": validation_seed + repeat,
        }
        for repeat in repeats
        for trial in trials
    }
    return FixedRuns(sweep, journal, runs, resources, keep_features=True, may_begin=may_begin)


def _compared_trials(journal: Journal) -> list[RunState]:
    """Return trial 0, if it has reached its last epoch, and the selected trial, if there is one."""
    selection = journal.state.selection
    assert selection is not None
    baseline = find_baseline(journal.state)
    selected = None if selection.trial is None else journal.state.runs[trial_run(selection.trial)]
    return [trial for trial in (baseline, selected) if trial]


def choose_winner(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """Choose the winner of the selected trial and trial 0 by the repeats after the race, see `choose`.

    The two are compared once, and the winner once with the champion. A trial that failed in a repeat is excluded.

    Returns:
        Result of the stage, as plain data.

    Raises:
        RunFailedError: neither finished all its repeats.
    """
    selection, first = journal.state.selection, first_proof_repeat(sweep)
    assert selection is not None
    pair = _compared_trials(journal)
    repeats = [
        repeat
        for repeat in range(first, first + sweep.file.confirm.repeats)
        if all(trial.repeat(repeat) in journal.state.runs for trial in with_champion(sweep, journal.state, pair))
    ]
    trials = [compared_trial(sweep, journal, trial, repeats) for trial in pair]
    complete = [trial for trial in trials if len(trial.runs) == len(repeats)]
    if not complete:
        raise RunFailedError("no trial finished all its repeats; their logs are in confirm/.")
    costs = [[compared.trial.costs[name] for name in sweep.file.costs] for compared in complete]
    values = np.array([compared.values for compared in complete])
    winner = complete[choose(values, costs, sweep.file.confirm.margin / 100)]
    difference = complete[1].difference_to(complete[0]) if len(complete) == 2 else None
    race = replay_race(sweep, journal.state).scores
    return {
        "winner": winner.trial.number,
        "selected": selection.trial,
        "repeats": len(repeats),
        "trials": [_row(trial, difference if trial.trial.number else None) for trial in complete],
        "race": [{"number": number, "values": list(race[number])} for number in sorted(race, key=_by_result(race))],
        "rounds": selection.rounds,
        "race_ended_by": selection.ended_by,
        "champion": check_against_champion(sweep, journal, winner, pair, repeats),
        "failed": [compared.trial.number for compared in trials if compared not in complete],
    }


def _by_result(race: Mapping[int, Sequence[float]]) -> Callable[[int], tuple[float, ...]]:
    """Return the sort key of a trial in the race: more rounds first, then the higher mean."""
    return lambda number: (-len(race[number]), -mean(race[number] or (0.0,)), number)


def _row(compared: ComparedTrial, difference: Difference | None) -> dict[str, Any]:
    names = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
    values = compared.values
    return {
        "number": compared.trial.number,
        "runs": [run.name for run in compared.runs],
        "values": values,
        "mean": mean(values),
        "deviation": stdev(values) if len(values) > 1 else None,
        **{name: mean(run.last(name) or 0.0 for run in compared.runs) for name in names},
        "against_trial0": difference.as_dict() if difference else None,
    }
