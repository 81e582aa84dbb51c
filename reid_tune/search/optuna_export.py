"""A sweep as an Optuna study in a file, for Optuna's tools."""

import shlex
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import atomic_path, check_output_file
from reid_tune.journal.costs import CostLedger
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.state import RunState, SweepState, replay
from reid_tune.search.study_columns import StudyColumns
from reid_tune.search_space.costs import ValuesWithCosts
from reid_tune.search_space.recorded import load_recorded_sweep
from reid_tune.search_space.space import SearchSpace

__all__ = ["export_study", "study_address"]

_SQLITE_ENDINGS = (".db", ".sqlite")
_STATES = {"finished": TrialState.COMPLETE, "failed": TrialState.FAIL, "running": TrialState.RUNNING}


def export_study(folder: Path, path: Path) -> int:
    """Write the trials of the sweep in a folder, running or not, as an Optuna study of its name.

    Args:
        folder: Folder of the sweep.
        path: New file; SQLite if it ends in `.db` or `.sqlite`, otherwise Optuna's journal.

    Returns:
        Number of trials.

    Raises:
        InputError: The folder has no sweep, its log is damaged, or the file exists or cannot be written.
        InfrastructureError: The disk is full, read-only or broken.
    """
    space = load_recorded_sweep(folder).space
    check_output_file("FILE", path)
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} exists already: name a new file, or remove this one.")
    events = read_events(folder / EVENTS)
    state = replay(events)
    trials = list(_frozen_trials(state, space, CostLedger(events).run_hours, folder.absolute()))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with atomic_path(path) as temporary:
        try:
            _write_study(temporary, state, trials, _sweep_attributes(state, space, folder))
        except (SQLAlchemyError, StorageInternalError) as error:
            reason: BaseException = error
            while reason.__cause__:  # The innermost is SQLite's, in a few words.
                reason = reason.__cause__
            raise InfrastructureError(f"cannot write {path}: {reason}; check the disk and try again.") from None
    return len(trials)


def study_address(path: Path) -> str:
    """Return what optuna-dashboard needs to open a file of `export_study`, quoted for a shell."""
    return shlex.quote(f"sqlite:///{path}" if path.suffix.lower() in _SQLITE_ENDINGS else str(path))


def _write_study(path: Path, state: SweepState, trials: list[FrozenTrial], attributes: Mapping[str, Any]) -> None:
    storage = _open_storage(path)
    directions = ["maximize"] + ["minimize"] * len(state.costs)
    study = optuna.create_study(storage=storage, study_name=state.header.name, directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([state.metric, *state.costs])
    for name, value in attributes.items():
        study.set_user_attr(name, value)
    study.add_trials(trials)
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def _open_storage(path: Path) -> BaseStorage:
    if path.suffix.lower() not in _SQLITE_ENDINGS:
        return JournalStorage(JournalFileBackend(str(path)))
    # Not by an address, in which some characters of a path have a meaning.
    return RDBStorage("sqlite://", engine_kwargs={"creator": lambda: _connect(path)})


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")  # A file that is not complete is never used.
    return connection


def _sweep_attributes(state: SweepState, space: SearchSpace, folder: Path) -> dict[str, Any]:
    """Return the study's user attributes."""
    return {
        "space": space.as_entries(),
        "folder": str(folder.absolute()),
        "uid": state.header.uid,
        "tracking_uri": state.header.tracking_uri,
        "stages": list(state.stages),
        "winner": state.stages.get("confirm", {}).get("winner"),
    }


def _frozen_trials(
    state: SweepState, space: SearchSpace, hours: Mapping[str, float], folder: Path
) -> Iterator[FrozenTrial]:
    columns = StudyColumns(space, [trial.parameters for trial in state.trials])
    repeats = {row["number"]: row for row in state.stages.get("confirm", {}).get("trials", [])}
    for trial in state.trials:
        params, others = columns.values(trial.parameters)
        values = _objectives(trial, state) if trial.state == "finished" else None
        optuna_state = _STATES.get(trial.state, TrialState.PRUNED)
        if optuna_state == TrialState.COMPLETE and values is None:
            optuna_state = TrialState.FAIL
        attributes = _trial_attributes(trial, folder) | {"hours": round(hours.get(trial.name, 0.0), 6)}
        if row := repeats.get(trial.number):
            attributes |= {"repeats": row["values"], "mean_of_repeats": row["mean"]}
        frozen = optuna.trial.create_trial(
            state=optuna_state,
            values=values,
            params=params,
            distributions={name: columns.distributions[name] for name in params},
            intermediate_values=_scores(trial, state.metric),
            constraints=_violations(space, trial.parameters),
            user_attrs=attributes | ({"outside_the_space": others} if others else {}),
        )
        frozen.datetime_start = datetime.fromtimestamp(trial.started)
        frozen.datetime_complete = datetime.fromtimestamp(trial.ended) if optuna_state.is_finished() else None
        yield frozen


def _objectives(trial: RunState, state: SweepState) -> list[float] | None:
    """Return the values of all objectives, None if one is missing."""
    values = [trial.last(state.metric), *(trial.costs.get(cost) for cost in state.costs)]
    return [float(value) for value in values if value is not None] if None not in values else None


def _scores(trial: RunState, metric: str) -> dict[int, float]:
    """Return the score by validated epoch."""
    return {epoch: metrics[metric] for epoch, metrics in sorted(trial.epochs.items()) if metric in metrics}


def _violations(space: SearchSpace, parameters: Mapping[str, Any]) -> dict[str, float]:
    """Return by each constraint's text -1 where a configuration satisfies it, otherwise 1."""
    values = ValuesWithCosts(space.base | dict(parameters))
    violations = {}
    for constraint in space.constraints:
        try:
            violations[constraint.text] = -1.0 if constraint.is_satisfied(values) else 1.0
        except ValueError:  # It cannot be computed, so that no trial may have these values.
            violations[constraint.text] = 1.0
    return violations


def _trial_attributes(trial: RunState, folder: Path) -> dict[str, Any]:
    """Return a trial's user attributes; texts that are empty are left out."""
    attributes = {
        "origin": trial.origin,
        "reason": trial.reason,
        "failure": trial.failure,
        "epochs": trial.epoch,
        "attempts": trial.attempts,
        **trial.costs,
        "folder": str(folder / trial.name),
    }
    return {name: value for name, value in attributes.items() if value != ""}
