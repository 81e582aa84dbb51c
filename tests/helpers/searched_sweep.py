"""Logs after a search, for the stages that follow it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_tune.journal.events import EpochReported, RunEnded, RunSuggested
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import trial_run
from reid_tune.search_space.load import SweepConfig

from .events import attempt_started, sweep_header
from .simulated_driver import EPOCHS

# Better by the surrogate with every number.
PARAMETERS = [
    {},
    {"train.optim.base_lr": 0.0006, "train.optim.name": "Adam"},
    {"train.optim.base_lr": 0.001, "train.optim.name": "AdamW"},
    {"train.optim.base_lr": 0.002, "train.optim.name": "AdamW"},
]


def journal_with(
    folder: Path,
    sweep: SweepConfig,
    trials: list[tuple[str, float]],
    parameters: Sequence[Mapping[str, Any]] = PARAMETERS,
) -> Journal:
    """The log after a search of these (state, mAP)."""
    journal = Journal(folder)
    journal.emit(
        sweep_header(name="simulated", sweep=sweep.file.model_dump(mode="json"), spec=sweep.experiment.parameters())
    )
    for number, (state, value) in enumerate(trials):
        run = trial_run(number)
        journal.emit(RunSuggested(run=run, parameters=dict(parameters[number])))
        journal.emit(attempt_started(run=run, attempt=1))
        journal.emit(EpochReported(run=run, epoch=EPOCHS, metrics={"mAP": value}))
        reason = {"reason": "out of memory", "failure": "out_of_memory"} if state == "failed" else {}
        journal.emit(RunEnded(run=run, state=state, epoch=EPOCHS, **reason))
    return journal
