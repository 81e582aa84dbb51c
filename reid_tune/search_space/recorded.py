"""A sweep as its event log describes it, without its search-space file."""

from pathlib import Path

from pydantic import ValidationError

from reid_tune.config.experiment import Experiment, unflatten
from reid_tune.errors import InputError
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.state import SweepState
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.parse import parse_spaces
from reid_tune.search_space.schema import SweepFile
from reid_tune.search_space.space import plain_values

__all__ = ["load_recorded_sweep", "recorded_experiment", "recorded_sweep"]


def load_recorded_sweep(folder: Path) -> SweepConfig:
    """Load the sweep in a folder as it began, with the folder as its source.

    Raises:
        InputError: the folder has no sweep, its log is damaged, or its spec is invalid in this version.
    """
    state, _ = read_sweep(folder)
    return recorded_sweep(state, folder)


def recorded_sweep(state: SweepState, folder: Path) -> SweepConfig:
    """Return the sweep of a state as it began, with its folder as its source.

    Raises:
        InputError: its search-space file or its spec is invalid in this version.
    """
    experiment = recorded_experiment(state, folder)
    try:
        file = SweepFile.model_validate(state.header.sweep)
    except ValidationError:
        raise _unreadable(folder) from None
    space, re_ranking = parse_spaces(file.space, file.constraints, plain_values(experiment), str(folder))
    return SweepConfig(
        file, space, re_ranking, experiment, folder.absolute(), folder, weights_references=state.header.weights
    )


def recorded_experiment(state: SweepState, folder: Path) -> Experiment:
    """Return the spec of trial 0.

    Raises:
        InputError: the spec is invalid in this version.
    """
    try:
        return Experiment.model_validate(unflatten(state.header.spec))
    except ValidationError:
        raise _unreadable(folder) from None


def _unreadable(folder: Path) -> InputError:
    return InputError(f"the sweep in {folder} was begun with another version, whose spec this one cannot read.")
