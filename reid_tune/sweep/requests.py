"""Requests of a user to a sweep's driver: stop a trial, try given values."""

from collections.abc import Sequence
from pathlib import Path

from reid_tune.config.load import parse_overrides, with_parameters
from reid_tune.errors import InputError, error_context
from reid_tune.journal.progress import Progress, read_sweep
from reid_tune.journal.requests import submit_request
from reid_tune.journal.state import trial_run
from reid_tune.modeling.cost import model_cost
from reid_tune.search.warm_start import parse_user_point
from reid_tune.search_space.recorded import load_recorded_sweep

__all__ = ["ask_to_enqueue", "ask_to_stop"]


def ask_to_stop(folder: Path, run: str) -> str:
    """Ask for the end of a trial and say what will come of it.

    Args:
        run: Name of a run, such as `trials/0007`.

    Raises:
        InputError: it is no trial of the search that may be stopped, or has ended.
    """
    state, progress = read_sweep(folder)
    if not run.startswith("trials/"):
        raise InputError(
            f"{run or folder.name} is no trial of the search, and only those can be stopped: write {folder.name}/7."
        )
    if run == trial_run(0):
        raise InputError("trial 0 is the spec itself, with which all are compared: it is never stopped.")
    if run not in state.runs:
        known = f"0 to {state.trials[-1].number}" if state.trials else "none"
        raise InputError(f"the sweep {folder.name} has no {run}; its trials are {known}.")
    trial = state.runs[run]
    if trial.state != "running":
        raise InputError(f"trial {trial.number} of {folder.name} has ended already: it is {trial.state}.")
    submit_request(folder, "stop", run)
    return _prospect(progress, f"trial {trial.number} will be stopped")


def ask_to_enqueue(folder: Path, pairs: Sequence[str]) -> str:
    """Ask for a trial with given values, `key=value`, and say what will come of it.

    Raises:
        InputError: a key is not in the space, or a value makes no spec or no network.
    """
    state, progress = read_sweep(folder)
    if not pairs:
        raise InputError("give at least one key=value of the space, for example train.optim.base_lr=0.001.")
    sweep = load_recorded_sweep(folder)
    parameters = parse_user_point(sweep, parse_overrides(pairs), "enqueue")
    with error_context("enqueue"):
        model_cost(
            with_parameters(sweep.experiment, parameters, "enqueue")
        )  # Builds the network, which may be refused.
    submit_request(folder, "enqueue", parameters)
    if "search" in state.stages:
        return "the search is over: when the sweep is resumed, it goes on with these values, and the rest is done again"
    return _prospect(progress, "the next trial that begins will have these values")


def _prospect(progress: Progress, what: str) -> str:
    if progress.state == "running":
        return what
    if progress.state == "elsewhere":
        return f"{what}, by the driver on {progress.host} or, if it is not at work, when the sweep is resumed"
    return f"no driver is at work: {what} when the sweep is resumed"
