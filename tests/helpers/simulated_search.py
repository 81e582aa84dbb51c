"""Searches with the simulated driver."""

from pathlib import Path
from typing import Any

from reid_tune.execution.failures import Failure
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import RunState
from reid_tune.search.asha import Rungs, rung_epochs
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.resume import make_header
from reid_tune.sweep.stages.search import TrialSource

from .simulated_driver import (
    EPOCHS,
    Objective,
    drive,
    surrogate,
)

LEVELS = rung_epochs(1, 3, EPOCHS)
DEAD = Failure("lost_worker", "the worker process died")
TPE = {"sampler": "tpe", "seed": 1}
NAME, RATE, MARGIN = "train.optim.name", "train.optim.base_lr", "train.optim.triplet_loss_margin"
CONDITIONAL: dict[str, Any] = {
    "space": {
        NAME: {"choice": ["Adam", "AdamW", "SGD"]},
        RATE: [
            {"loguniform": [1e-3, 1e-1], "when": {NAME: "SGD"}},
            {"loguniform": [1e-4, 1e-2], "when": {NAME: ["Adam", "AdamW"]}},
        ],
        "model.no_margin": {"choice": [True, False]},
        MARGIN: {"quniform": [0.1, 0.6, 0.05], "when": {"model.no_margin": False}},
        "train.optim.lr_steps": {"list": [{"int": [2, 3]}, {"int": [4, 5]}]},
    },
    "constraints": [f"{MARGIN} < 0.4 or {NAME} == 'AdamW'", f"{RATE} > 5e-4"],
}
GRID: dict[str, Any] = {
    "space": {
        NAME: {"choice": ["Adam", "AdamW"]},
        "train.optim.warmup_iters": {"int": [0, 3]},
        MARGIN: {"quniform": [0.2, 0.4, 0.1], "when": {NAME: "AdamW"}},
    },
    "constraints": [f"{MARGIN} < 0.35 or train.optim.warmup_iters > 0"],
}
PROMOTE: dict[str, Any] = {"scheduler": {"mode": "promote", "reduction_factor": 2}, "keep_paused": 3}


class EpochBudget:
    """A budget tracker to which an epoch of a trial is a GPU-hour; without a reserve."""

    def __init__(self, sweep: SweepConfig, journal: Journal) -> None:
        self.limit, self.state = sweep.file.budget.gpu_hours, journal.state

    def exceeded_limit(self) -> str | None:
        spent = sum(len(trial.epochs) for trial in self.state.trials)
        return "gpu_hours" if self.limit is not None and spent >= self.limit else None

    def next_trial_limit(self) -> str | None:
        return self.exceeded_limit()

    def continuation_limit(self, trial: RunState) -> str | None:
        return self.exceeded_limit()


def start(sweep: SweepConfig, folder: Path, levels: tuple[int, ...] = LEVELS) -> tuple[TrialSource, Journal]:
    journal = begin(sweep, folder)
    return make_source(sweep, journal, levels), journal


def make_source(sweep: SweepConfig, journal: Journal, levels: tuple[int, ...] = LEVELS) -> TrialSource:
    """The source of a search; `budget.gpu_hours` are epochs."""
    budget: Any = EpochBudget(sweep, journal)
    return TrialSource(sweep, journal, Rungs(levels), budget_tracker=budget)


def begin(sweep: SweepConfig, folder: Path) -> Journal:
    """The journal of a sweep that has begun, or begins now."""
    journal = Journal(folder)
    if not journal.earlier_events:
        journal.emit(make_header(sweep))
    return journal


def searched(sweep: SweepConfig, folder: Path, objective: Objective = surrogate) -> tuple[TrialSource, Journal]:
    source, journal = start(sweep, folder)
    drive(source, objective)
    return source, journal


def wait_in(sweep: SweepConfig, folder: Path, trials: int) -> tuple[TrialSource, Journal]:
    """A search in which that many trials have been started and nothing has been reported."""
    source, journal = start(sweep, folder)
    for _ in range(trials):
        assert source.next_attempt() is not None
    return source, journal
