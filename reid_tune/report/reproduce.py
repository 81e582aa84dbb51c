"""The command that trains a run of a sweep once more, and whether the same came out."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reid_tune.config.defaults import documented_values
from reid_tune.config.experiment import unflatten
from reid_tune.config.load import with_parameters
from reid_tune.config.unused_fields import unused_fields
from reid_tune.errors import InputError
from reid_tune.files import write_atomic
from reid_tune.journal.provenance import WorkerResources, worker_resources_of
from reid_tune.journal.state import RunState, SweepState
from reid_tune.journal.store import load_state, split_run_reference, sweep_folder
from reid_tune.search_space.recorded import recorded_experiment

__all__ = [
    "SPEC",
    "ReproduceCommand",
    "find_run",
    "inline_yaml",
    "reproduce_command",
    "reproduce_commands",
    "write_spec",
]

SPEC = "spec.yaml"


@dataclass(frozen=True)
class ReproduceCommand:
    """A `reid-tune train`; `str` is its command line.

    Attributes:
        spec: The sweep's whole spec, that of trial 0.
        pairs: What the run changes in it.
        environment: Variables that make its arithmetic that of the sweep's worker.
        exact: Whether the same numbers must come out, on the same machine.
    """

    spec: Path
    pairs: dict[str, Any]
    environment: dict[str, str]
    exact: bool

    @property
    def words(self) -> list[str]:
        """The arguments of `reid-tune`."""
        return ["train", "-e", str(self.spec), *(f"{key}={inline_yaml(value)}" for key, value in self.pairs.items())]

    @property
    def results(self) -> Path:
        """The folder of its checkpoints."""
        return Path(self.pairs["train.results_dir"])

    def __str__(self) -> str:
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return shlex.join([*variables, "reid-tune", *self.words])


def reproduce_commands(state: SweepState, trial: RunState, spec: Path) -> dict[str, str]:
    """Command lines by what they do; none where this version cannot read the sweep's spec.

    Args:
        spec: The sweep's whole spec, that of trial 0.
    """
    refit = RunState("refit/winner", {**trial.parameters, "dataset.validation": "none"})
    try:
        return {
            "As in the search, judged on the held-out identities": str(reproduce_command(state, trial, spec)),
            "On all training identities, as in the refit": str(reproduce_command(state, refit, spec)),
        }
    except InputError:
        return {}


def reproduce_command(state: SweepState, run: RunState, spec: Path) -> ReproduceCommand:
    """How a run is trained again.

    Args:
        spec: See `write_spec`; beside it lies what the runs left.

    Raises:
        InputError: this version cannot read the spec.
    """
    experiment = with_parameters(recorded_experiment(state, spec.parent), run.parameters, run.name)
    # A spec with values that do nothing is refused, and the run's own values may have made some of the others idle.
    idle = {field.key: documented_values(field.key)[0] for field in unused_fields(experiment) if field.user_set}
    held = worker_resources_of(state, run, spec.parent)
    workers = {"train.num_gpus": held.workers} if held.workers > 1 else {}
    name = f"trial-{run.number}" if run.name.startswith("trials/") else run.name.replace("/", "-")
    results = {"train.results_dir": f"results/{state.header['name']}-{name}"}
    exact = experiment.train.deterministic and held.workers == 1 and experiment.train.seed >= 0
    return ReproduceCommand(spec, {**run.parameters, **idle, **workers, **results}, _environment(held), exact)


def _environment(held: WorkerResources) -> dict[str, str]:
    """On the CPU sums depend on the number of threads; a GPU that the run did not have is hidden."""
    if held.gpus != 0:
        return {}
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if held.hidden else {}
    return hidden | {"OMP_NUM_THREADS": str(held.cpus)}


def find_run(name: str, storage: str) -> tuple[SweepState, RunState, Path]:
    """A sweep's state, one of its runs and its folder, of `NAME/7` or `NAME/refit/winner`.

    Raises:
        InputError: there is no such sweep or run.
    """
    sweep, run = split_run_reference(name)
    state, folder = load_state(sweep, storage), sweep_folder(sweep, storage)
    if not run:
        raise InputError(f"{name} is a whole sweep: write {name}/7 for trial 7, or {name}/refit/winner.")
    if run not in state.runs:
        raise InputError(f"the sweep {sweep} has no run {run}; its runs are {', '.join(state.runs) or 'none'}.")
    return state, state.runs[run], folder


def write_spec(folder: Path, state: SweepState) -> Path:
    """Write a sweep's whole spec beside its log, unless it is there; returns its absolute path.

    Raises:
        InputError: the folder cannot be written.
    """
    path = (folder / SPEC).absolute()
    if not path.is_file():
        write_atomic(path, yaml.safe_dump(unflatten(state.header["spec"]), sort_keys=False, allow_unicode=True))
    return path


def inline_yaml(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
