"""Requests of a user to a sweep's driver: stop a trial, or try given parameters next."""

from collections.abc import Sequence

from reid_tune.config.load import with_parameters
from reid_tune.config.yaml_reader import parse_overrides
from reid_tune.errors import InputError, error_context
from reid_tune.journal.progress import Progress, read_sweep
from reid_tune.journal.requests import submit_request
from reid_tune.journal.s3_reader import snapshot_for_reading
from reid_tune.journal.state import trial_run
from reid_tune.journal.sweep_lookup import sweep_folder
from reid_tune.modeling.cost import model_cost
from reid_tune.search.warm_start import parse_user_point
from reid_tune.search_space.recorded import load_recorded_sweep
from reid_tune.search_space.weights import absolute_path, replace_texts
from reid_tune.storage.object_store import ObjectStore, open_store
from reid_tune.sweep.pretrained import named_by_reference, pinned_values
from reid_tune.sweep.stages.weights_check import load_weights_of

__all__ = ["ask_to_enqueue", "ask_to_stop"]


def ask_to_stop(name: str, run: str, storage: str = "runs") -> str:
    """Request the end of a trial, and return a sentence that says when it will end.

    Args:
        name: Name of the sweep.
        run: Name of a run, such as `trials/0007`.
        storage: Folder or `s3://` address that holds the sweep.

    Raises:
        InputError: there is no such sweep, the run is not a trial that can be stopped, or it has ended.
    """
    state, progress = read_sweep(sweep_folder(name, snapshot_for_reading(storage, name)))
    if not run.startswith("trials/"):
        raise InputError(f"{run or name} is not a trial of the search, and only trials can be stopped: write {name}/7.")
    if run == trial_run(0):
        raise InputError("trial 0 is the spec itself, with which all are compared: it is never stopped.")
    if run not in state.runs:
        numbers = f"0 to {state.trials[-1].number}" if state.trials else "none"
        raise InputError(f"the sweep {name} has no {run}; its trials are {numbers}.")
    trial = state.runs[run]
    if trial.state not in ("running", "paused"):
        raise InputError(f"trial {trial.number} of {name} has ended already: it is {trial.state}.")
    submit_request(_store(name, storage), "stop", run)
    return _expectation(progress, f"trial {trial.number} will be stopped")


def ask_to_enqueue(name: str, pairs: Sequence[str], storage: str = "runs") -> str:
    """Request a trial with given parameters, and return a sentence that says when it will start.

    Args:
        name: Name of the sweep.
        pairs: Parameters as `key=value`; keys that are omitted keep the spec's values.
        storage: Folder or `s3://` address that holds the sweep.

    Raises:
        InputError: there is no such sweep, a key is not in its space, or the values do not make a spec or a network.
    """
    folder = sweep_folder(name, snapshot_for_reading(storage, name))
    state, progress = read_sweep(folder)
    if not pairs:
        raise InputError("give at least one key=value of the space, for example train.optim.base_lr=0.001.")
    sweep = load_recorded_sweep(folder)
    values = replace_texts(parse_overrides(pairs), sweep.weights_references)
    with named_by_reference(sweep.weights_references):
        parameters = parse_user_point(sweep, values, "enqueue")
        files, address = _store(name, storage), absolute_path(f"{storage.rstrip('/')}/{name}")
        with error_context("enqueue"), pinned_values(parameters, files, address) as pinned:
            experiment = with_parameters(sweep.experiment, pinned, "enqueue")
            model_cost(experiment)  # Builds the network, which fails for some values.
            load_weights_of([experiment])
            submit_request(files, "enqueue", pinned)
    if "search" in state.stages:
        return (
            "the search is over: when the sweep is resumed, it continues with this trial and repeats the later stages"
        )
    return _expectation(progress, "the next trial that starts will have these parameters")


def _store(name: str, storage: str) -> ObjectStore:
    return open_store(f"{storage.rstrip('/')}/{name}")


def _expectation(progress: Progress, event: str) -> str:
    if progress.state == "running":
        return event
    if progress.state == "elsewhere":
        return f"{event}, by the driver on {progress.host} or, if that is not running, when the sweep is resumed"
    return f"no driver is running: {event} when the sweep is resumed"
