"""The driver: stage after stage, each recorded in the log."""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from reid_tune.checkpoints.encryption import encrypt
from reid_tune.errors import ReidTuneError
from reid_tune.events.log import read_events
from reid_tune.files import make_folder
from reid_tune.spec.secret import passphrase
from reid_tune.sweep.file import STAGES, Sweep
from reid_tune.sweep.journal import EVENTS, Journal
from reid_tune.sweep.report.live import LiveView
from reid_tune.sweep.report.page import write_page
from reid_tune.sweep.resume import Resume, existing_state, require_key
from reid_tune.sweep.runs.cluster import local_cluster, place
from reid_tune.sweep.search.search import Search
from reid_tune.sweep.stages.finals import export, register, test
from reid_tune.sweep.stages.preflight import preflight
from reid_tune.sweep.stages.refit import Refit
from reid_tune.sweep.state import SweepState
from reid_tune.tasks.split import SPLIT, write_lists
from reid_tune.tracking.sender import Sender
from reid_tune.tracking.store import public, reachable, tracking_uri, with_credentials

__all__ = ["plan_sweep", "run_sweep"]

# Seconds that the end of a sweep waits for MLflow, and an interrupted one.
_SENDING, _HURRY = 60.0, 3.0


def plan_sweep(sweep: Sweep, until: str) -> dict[str, Any]:
    """All checks and the plan, without writing anything.

    Raises:
        InputError: the first thing that would make the sweep fail.
    """
    passphrase(sweep.experiment)  # Refuses a file of the key that cannot be read.
    plan = preflight(sweep, _stages(until))
    with local_cluster():
        return {"name": sweep.file.name, "folder": str(sweep.folder)} | plan | _resources(sweep)


def run_sweep(sweep: Sweep, *, resume: Resume, until: str) -> SweepState:
    """Run all stages up to `until`, each once in the life of a sweep, and return the state behind them.

    Args:
        resume: `never` refuses a name that exists; `auto` begins or continues.

    Raises:
        InputError: file, spec, data, name or resources are wrong.
        FailedRun: no trial could be finished.
    """
    stages = _stages(until)
    if read_events(sweep.folder / EVENTS):
        state = existing_state(sweep, resume)
        stages = tuple(stage for stage in stages if stage not in state.stages)
        if not stages:
            return state
        require_key(sweep, state)
    key = passphrase(sweep.experiment)
    plan = preflight(sweep, stages)
    make_folder(sweep.folder)
    console = Console(file=sys.stderr)
    if not reachable(uri := tracking_uri()):
        _warn(
            console,
            f"the MLflow server {public(uri)} does not answer; the log keeps what it misses, register will need it.",
        )
    for warning in plan["warnings"]:
        _warn(console, warning)
    with local_cluster(key):
        return _drive(sweep, plan | _resources(sweep), stages, console)


def _stages(until: str) -> tuple[str, ...]:
    return STAGES[: STAGES.index(until) + 1]


def _drive(sweep: Sweep, plan: dict[str, Any], stages: tuple[str, ...], console: Console) -> SweepState:
    view = LiveView(console, sweep.file.metric, sweep.file.budget.trials)
    work = _work(sweep, plan)
    with Journal(sweep.folder) as journal, view:
        journal.listeners.append(view)
        _begin(sweep, journal)
        with _tracked(journal, console):
            for stage in stages:
                journal.emit("stage", stage=stage, state="begun", result={})
                journal.emit("stage", stage=stage, state="done", result=work[stage](journal))
        _write_page(sweep, console)
        return journal.state


def _work(sweep: Sweep, plan: dict[str, Any]) -> dict[str, Callable[[Journal], dict[str, Any]]]:
    return {
        "preflight": lambda journal: _prepare(sweep, plan),
        "search": lambda journal: _search(sweep, journal, plan),
        "refit": lambda journal: _refit(sweep, journal),
        "export": lambda journal: export(sweep, journal),
        "test": lambda journal: test(sweep, journal),
        "register": lambda journal: register(sweep, journal),
    }


def _prepare(sweep: Sweep, plan: dict[str, Any]) -> dict[str, Any]:
    write_lists(sweep.experiment, sweep.folder / SPLIT)
    return plan


def _search(sweep: Sweep, journal: Journal, plan: dict[str, Any]) -> dict[str, Any]:
    from reid_tune.sweep.runs.runner import run_all

    levels = tuple(plan["rungs"])
    run_all(Search(sweep, journal, levels), place(sweep.file.resources, 1), 1, levels, sweep.folder / "ray")
    states = [trial.state for trial in journal.state.trials]
    return {name: states.count(name) for name in ("finished", "stopped", "failed")}


def _refit(sweep: Sweep, journal: Journal) -> dict[str, Any]:
    from reid_tune.sweep.runs.runner import run_all

    workers = sweep.file.resources.refit_workers
    source = Refit(sweep, journal)
    run_all(source, place(sweep.file.resources, workers), workers, (), sweep.folder / "ray")
    return {run: journal.state.runs[run].state for run in source.todo}


def _resources(sweep: Sweep) -> dict[str, Any]:
    placement = place(sweep.file.resources, 1)
    place(sweep.file.resources, sweep.file.resources.refit_workers)
    return {"at_once": placement.at_once, "cpus_per_trial": placement.cpus, "gpus_per_trial": placement.gpus}


def _begin(sweep: Sweep, journal: Journal) -> None:
    if not journal.past:
        uid, key = secrets.token_hex(8), passphrase(sweep.experiment)
        journal.emit(
            "sweep",
            name=sweep.file.name,
            uid=uid,
            lock=encrypt(uid.encode(), key).hex() if key is not None else None,
            tracking_uri=public(tracking_uri()),
            sweep=sweep.file.model_dump(mode="json"),
            spec=sweep.experiment.parameters(),
        )
    resumed = bool(journal.past)
    journal.emit("driver", pid=os.getpid(), host=socket.gethostname(), resumed=resumed, command=sys.argv)


@contextmanager
def _tracked(journal: Journal, console: Console) -> Iterator[None]:
    """Send the log to MLflow during the block, and end the parent run as the block ends."""
    sender = Sender(journal.path, with_credentials(journal.state.header["tracking_uri"]))
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except ReidTuneError:
        status = "FAILED"
        raise
    finally:
        sender.finish(status)
        if not sender.close(_HURRY if status == "KILLED" else _SENDING):
            _warn(console, f"{sender.lag} events are not in MLflow: {sender.last_error}.")


def _write_page(sweep: Sweep, console: Console) -> None:
    try:
        write_page(sweep.folder)
    except Exception as error:  # A sweep that is done does not fail over its page.
        _warn(console, f"there is no page, make it with reid-tune report: {error}")


def _warn(console: Console, text: str) -> None:
    console.print(f"warning: {text}", style="yellow", markup=False, emoji=False, highlight=False, soft_wrap=True)
