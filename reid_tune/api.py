"""The Python interface: run a sweep, and read one as pandas tables."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml

from reid_tune.checkpoints.filenames import newest_checkpoint
from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.errors import InputError
from reid_tune.journal.costs import CostLedger
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.s3_reader import snapshot_for_reading
from reid_tune.journal.stages import STAGES, ResumeMode, Stage
from reid_tune.journal.state import RunState
from reid_tune.journal.sweep_lookup import sweep_folder
from reid_tune.report.summary import winner_run
from reid_tune.search.parameters import searched_parameters
from reid_tune.search_space.recorded import recorded_experiment

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["SweepResult", "load_sweep", "run_sweep"]


class SweepResult:
    """A sweep as its event log describes it, running or not. Scores are fractions.

    Args:
        folder: Folder of the sweep.

    Attributes:
        state: All runs and the results of the stages.

    Raises:
        InputError: The folder has no sweep, or its log is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state, _ = read_sweep(folder)

    def __repr__(self) -> str:
        return f"SweepResult({str(self.folder)!r}, trials={len(self.state.trials)}, stages={list(self.state.stages)})"

    @cached_property
    def trials(self) -> "DataFrame":
        """Trials by number: state, epochs, score, costs, hours, origin, reason, failure, and the searched keys.

        A key is missing (NaN) where a condition leaves it out. It has the spec's value in trial 0, and in trials from
        before the space had it.
        """
        from pandas import DataFrame

        trials = self.state.trials
        parameters = {key.key: key.values_by_trial(trials) for key in searched_parameters(self.state)}
        rows = [
            {"trial": trial.number}
            | self._row(trial)
            | {"origin": trial.origin, "reason": trial.reason, "failure": trial.failure}
            | {key: values[trial.number] for key, values in parameters.items() if trial.number in values}
            for trial in trials
        ]
        columns = [*self._columns, "origin", "reason", "failure", *parameters]
        return DataFrame(rows, columns=columns).set_index("trial")

    @cached_property
    def repeats(self) -> "DataFrame":
        """Repeats in the stage confirm: trial (vN for a champion), repeat, state, epochs, score and hours."""
        from pandas import DataFrame

        rows = []
        for run in self.state.runs.values():
            if run.name.startswith("confirm/"):
                trial, _, repeat = run.name.removeprefix("confirm/").partition("-")
                number = int(trial) if trial.isdigit() else trial
                rows.append(self._row(run) | {"trial": number, "repeat": int(repeat)})
        return DataFrame(rows, columns=["trial", "repeat", *self._columns[1:]])

    @cached_property
    def epochs(self) -> "DataFrame":
        """Epochs of all runs: the run's name, the epoch from 1, and each metric."""
        from pandas import DataFrame

        rows = [
            {"run": run.name, **metrics, "epoch": epoch}
            for run in self.state.runs.values()
            for epoch, metrics in sorted(run.epochs.items())
        ]
        return DataFrame(rows, columns=list(dict.fromkeys(["run", "epoch", *(key for row in rows for key in row)])))

    @property
    def best(self) -> Experiment:
        """The spec of the winner; before the stage confirm that of the best full-length trial.

        Raises:
            InputError: No trial has reached its last epoch.
        """
        trial = self._winner
        return with_parameters(recorded_experiment(self.state, self.folder), trial.parameters, trial.name)

    @property
    def model(self) -> Path:
        """The file of the best model: the exported ONNX file, otherwise the newest checkpoint of refit or search.

        Raises:
            InputError: There is no such file (yet).
        """
        onnx_file = self.folder / "export" / "winner.onnx"
        runs = [self.folder / "refit" / "winner", self.folder / self._winner.name]
        files = [onnx_file] if onnx_file.is_file() else [path for run in runs if (path := newest_checkpoint(run))]
        if not files:
            raise InputError(f"{self.folder} has no model: its checkpoints were removed, or are not here.")
        return files[0]

    @property
    def champion(self) -> Path:
        """The ONNX file of the registered model's champion, which may be that of another sweep.

        Raises:
            InputError: There is no such model, or it has no champion.
            InfrastructureError: The tracking server does not answer.
        """
        from reid_tune.tasks.common.model_references import ONNX
        from reid_tune.tracking.registry.resolve import resolve
        from reid_tune.tracking.store import with_credentials

        registry = self.state.header.sweep["registry"]
        reference = f"models:/{registry['model']}@{registry['alias']}"
        return resolve(reference, with_credentials(self.state.header.tracking_uri)) / ONNX

    @property
    def _winner(self) -> RunState:
        trial = winner_run(self.state)
        if trial is None:
            raise InputError(f"the sweep in {self.folder} has no best trial: none has reached its last epoch.")
        return trial

    @cached_property
    def _hours(self) -> dict[str, float]:
        return CostLedger(read_events(self.folder / EVENTS)).run_hours

    @property
    def _columns(self) -> list[str]:
        return ["trial", "state", "epochs", self.state.metric, *self.state.costs, "hours"]

    def _row(self, run: RunState) -> dict[str, Any]:
        scores = {self.state.metric: run.last(self.state.metric), **run.costs}
        return {"state": run.state, "epochs": run.epoch, "hours": self._hours.get(run.name, 0.0)} | scores


def load_sweep(sweep: str | Path, storage: str = "runs") -> SweepResult:
    """Load a sweep, running or not.

    Args:
        sweep: Name of a sweep in the storage, or its folder.
        storage: Folder or `s3://` address that holds the sweeps.

    Raises:
        InputError: There is no such sweep, it has not started, or its log is damaged.
        InfrastructureError: The object store does not answer.
    """
    if (Path(sweep) / EVENTS).is_file():
        return SweepResult(Path(sweep))
    return SweepResult(sweep_folder(str(sweep), snapshot_for_reading(storage, str(sweep))))


def run_sweep(
    file: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] | str = (),
    *,
    resume: ResumeMode = "never",
    until: Stage = "register",
    start: Stage | None = None,
    address: str | None = None,
    accept_space: bool = False,
) -> SweepResult:
    """Run a sweep as the command `reid-tune sweep` does, and return it. Any thread may call this, also in a notebook.

    Ctrl-C, or the button of a notebook that interrupts the kernel, stops the sweep with KeyboardInterrupt; it can be
    continued with `resume="auto"`.

    Args:
        file: Search-space file.
        overrides: Values by key, which may be those of numpy and paths, or one or more texts `key=value`: `sweep.KEY`
            for the file, the others for the spec.
        resume: `never` rejects a sweep that exists; `auto` begins or continues it.
        until: Last stage.
        start: Stage that is run again with all later ones.
        address: Address of a Ray cluster, None to start Ray on this machine.
        accept_space: Whether the space of a sweep that exists may change.

    Raises:
        InputError: The file, the spec, the data, the name or the resources are invalid.
        InfrastructureError: The disk is full, or Ray is lost. The sweep can be continued.
        RunFailedError: No trial could be finished.
    """
    from reid_tune.search_space.load import load_sweep as load_file
    from reid_tune.sweep.run import run_sweep as run

    _require_choice("resume", resume, get_args(ResumeMode))
    _require_choice("until", until, STAGES)
    _require_choice("start", start, (None, *STAGES))
    loaded = load_file(file, _override_texts(overrides))
    for line in loaded.notes:
        print(line, file=sys.stderr)
    run(loaded, resume=resume, until=until, start=start, address=address, accept_space=accept_space)
    return SweepResult(loaded.folder)


def _require_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r} is not a choice: use {', '.join(map(repr, choices))}.")


def _override_texts(overrides: Mapping[str, Any] | Sequence[str] | str) -> list[str]:
    if isinstance(overrides, str):
        return [overrides]
    if isinstance(overrides, Mapping):
        return [f"{key}={_inline_yaml(key, value)}" for key, value in overrides.items()]
    if isinstance(overrides, Sequence) and all(isinstance(text, str) for text in overrides):
        return list(overrides)
    raise InputError(f"overrides={overrides!r:.80}: use a mapping of values by key, or texts such as 'train.seed=1'.")


def _inline_yaml(key: str, value: Any) -> str:
    try:
        text = yaml.safe_dump(_plain(value), default_flow_style=True, width=math.inf)
    except yaml.representer.RepresenterError:
        raise InputError(f"the value of {key} is {value!r:.80}: use a number, a text, a list or a mapping.") from None
    return text.removesuffix("...\n").strip()  # The mark of the end that follows a single value.


def _plain(value: Any) -> Any:
    """Return a value of a notebook as YAML has it: numbers and arrays of numpy, and paths, also inside of others."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value
