"""Commands that train a run of a sweep again."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reid_tune.config.defaults import backbone_defaults
from reid_tune.config.experiment import unflatten
from reid_tune.config.keys import spec_values
from reid_tune.config.load import with_parameters
from reid_tune.config.unused_fields import unused_fields
from reid_tune.errors import InputError
from reid_tune.files import write_atomic
from reid_tune.journal.run_record import WorkerResources, worker_resources_of
from reid_tune.journal.state import RunState, SweepState
from reid_tune.journal.sweep_lookup import load_state, split_run_reference, sweep_folder
from reid_tune.report.formatting import inline_yaml
from reid_tune.search_space.recorded import recorded_experiment

__all__ = [
    "SPEC",
    "ReproduceCommand",
    "find_run",
    "reproduce_command",
    "reproduce_commands",
    "spec_yaml",
    "write_spec",
]

SPEC = "spec.yaml"


@dataclass(frozen=True)
class ReproduceCommand:
    """A `reid-tune train`; `str` is its command line.

    Attributes:
        spec: File with the sweep's whole spec, that of trial 0.
        overrides: Values of the run that differ from the spec, by key.
        environment: Environment variables that give the arithmetic of the sweep's worker.
        is_exact: Whether the same machine must give the same numbers.
    """

    spec: Path
    overrides: dict[str, Any]
    environment: dict[str, str]
    is_exact: bool

    @property
    def arguments(self) -> list[str]:
        """The arguments of `reid-tune`."""
        overrides = [f"{key}={inline_yaml(value)}" for key, value in self.overrides.items()]
        return ["train", "-e", str(self.spec), *overrides]

    @property
    def results_folder(self) -> Path:
        """The folder of its checkpoints."""
        return Path(self.overrides["train.results_dir"])

    def __str__(self) -> str:
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return shlex.join([*variables, "reid-tune", *self.arguments])


def reproduce_commands(state: SweepState, trial: RunState, spec: Path) -> dict[str, str]:
    """Return command lines for a trial by what they do; empty where this version cannot read the sweep's spec.

    Args:
        spec: File with the sweep's whole spec, that of trial 0.
    """
    refit = RunState("refit/winner", {**trial.parameters, "dataset.validation": "none"})
    try:
        return {
            "As in the search, scored on the validation split": str(reproduce_command(state, trial, spec)),
            "On all training identities, as in the refit": str(reproduce_command(state, refit, spec)),
        }
    except InputError:
        return {}


def reproduce_command(state: SweepState, run: RunState, spec: Path) -> ReproduceCommand:
    """Return the command that trains a run again.

    Args:
        spec: File from `write_spec`, in the sweep's folder.

    Raises:
        InputError: This version cannot read the spec.
    """
    experiment = with_parameters(recorded_experiment(state, spec.parent), run.parameters, run.name)
    # Some values without effect are refused, and the run's parameters may have made some of the spec's values such
    # ones: these return to their defaults.
    defaults = backbone_defaults(experiment.model.backbone)
    unused = {field.key: defaults[field.key] for field in unused_fields(experiment) if field.is_refused}
    resources = worker_resources_of(state, run, spec.parent)
    workers = {"train.num_gpus": resources.workers} if resources.workers > 1 else {}
    name = f"trial-{run.number}" if run.name.startswith("trials/") else run.name.replace("/", "-")
    results = {"train.results_dir": f"results/{state.header.name}-{name}"}
    is_exact = experiment.train.deterministic and resources.workers == 1 and experiment.train.seed >= 0
    overrides = {**spec_values(run.parameters), **unused, **workers, **results}
    return ReproduceCommand(spec, overrides, _environment(resources), is_exact)


def _environment(resources: WorkerResources) -> dict[str, str]:
    """Return variables for a run on the CPU, whose sums depend on the number of threads; its hidden GPUs stay so."""
    if resources.gpus != 0:
        return {}
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if resources.gpus_hidden else {}
    return hidden | {"OMP_NUM_THREADS": str(resources.cpus)}


def find_run(name: str, storage: str) -> tuple[SweepState, RunState, Path]:
    """Return a sweep's state, one of its runs, and its folder.

    Args:
        name: Sweep and run: `NAME/7` for trial 7, `NAME/refit/winner`, `NAME/confirm/0007-2`.

    Raises:
        InputError: The sweep or the run does not exist.
    """
    sweep, run = split_run_reference(name)
    state, folder = load_state(sweep, storage), sweep_folder(sweep, storage)
    if not run:
        raise InputError(f"{name} is a whole sweep: write {name}/7 for trial 7, or {name}/refit/winner.")
    if run not in state.runs:
        raise InputError(f"the sweep {sweep} has no run {run}; its runs are {', '.join(state.runs) or 'none'}.")
    return state, state.runs[run], folder


def spec_yaml(state: SweepState) -> str:
    """Return a sweep's whole spec, that of trial 0, as YAML."""
    return yaml.safe_dump(unflatten(state.header.spec), sort_keys=False, allow_unicode=True)


def write_spec(folder: Path, state: SweepState) -> Path:
    """Write a sweep's whole spec into its folder unless the file exists; return its absolute path.

    Raises:
        InputError: The folder cannot be written.
    """
    path = (folder / SPEC).absolute()
    if not path.is_file():
        write_atomic(path, spec_yaml(state))
    return path
