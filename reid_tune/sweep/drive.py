"""The driver: stage after stage, each recorded in the log."""

import os
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from reid_tune.errors import InputError
from reid_tune.sweep.cluster import local_cluster, place
from reid_tune.sweep.file import STAGES, Sweep, load_sweep
from reid_tune.sweep.finals import export, register, test
from reid_tune.sweep.journal import EVENTS, Journal
from reid_tune.sweep.live import LiveView
from reid_tune.sweep.preflight import preflight
from reid_tune.sweep.refit import Refit
from reid_tune.sweep.search import Search
from reid_tune.sweep.state import SweepState
from reid_tune.tracking.sender import Sender
from reid_tune.tracking.store import tracking_uri

__all__ = ["plan_sweep", "run_sweep"]

Resume = Literal["never", "auto"]

# The values of a sweep file that a resumed sweep may change.
_FREE = {"resources", "storage"}
_SENDING = 60.0


def plan_sweep(path: Path, overrides: list[str], until: str) -> dict[str, Any]:
    """All checks and the plan, without writing anything.

    Raises:
        InputError: the first thing that would make the sweep fail.
    """
    sweep = load_sweep(path, overrides)
    plan = preflight(sweep, until)
    with local_cluster():
        return plan | _resources(sweep)


def run_sweep(path: Path, overrides: list[str], *, resume: Resume, until: str) -> SweepState:
    """Run all stages up to `until`, each once in the life of a sweep, and return the state behind them.

    Args:
        resume: `never` refuses a name that exists; `auto` begins or continues.

    Raises:
        InputError: file, spec, data, name or resources are wrong.
        FailedRun: no trial could be finished.
    """
    sweep = load_sweep(path, overrides)
    exists = (sweep.folder / EVENTS).is_file()
    if exists and resume == "never":
        raise InputError(
            f"the sweep {sweep.file.name} exists in {sweep.folder}: continue it with "
            f"'reid-tune sweep {path} --resume auto', or set another name with sweep.name=NAME."
        )
    console = Console(file=sys.stderr)
    if not exists or _last_stages(sweep, until):
        plan = preflight(sweep, until)
        for warning in plan["warnings"]:
            console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)
        with local_cluster():
            return _drive(sweep, plan | _resources(sweep), until, console)
    with Journal(sweep.folder) as journal:
        _check_same(sweep, journal)
        return journal.state


def _last_stages(sweep: Sweep, until: str) -> list[str]:
    """Stages up to `until` that an existing sweep has not done."""
    from reid_tune.sweep.report import load_state

    done = load_state(sweep.folder.name, str(sweep.folder.parent)).stages
    return [stage for stage in STAGES[: STAGES.index(until) + 1] if stage not in done]


def _drive(sweep: Sweep, plan: dict[str, Any], until: str, console: Console) -> SweepState:
    metric, trials = sweep.file.objective.metric, sweep.file.budget.trials
    with Journal(sweep.folder) as journal, LiveView(console, metric, trials) as view:
        journal.listeners.append(view)
        _begin(sweep, journal)
        sender = Sender(journal.path, journal.state.header["tracking_uri"])
        stages = _stages(sweep, journal, plan)
        for stage in STAGES[: STAGES.index(until) + 1]:
            if stage not in journal.state.stages:
                journal.emit("stage", stage=stage, state="begun", result={})
                journal.emit("stage", stage=stage, state="done", result=stages[stage]())
        if until == STAGES[-1]:
            sender.finish()
        if not sender.close(_SENDING):
            console.print(f"warning: {sender.lag} events are not in MLflow yet: {sender.last_error}.", style="yellow")
        return journal.state


def _stages(sweep: Sweep, journal: Journal, plan: dict[str, Any]) -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "preflight": lambda: plan,
        "search": lambda: _search(sweep, journal, plan),
        "refit": lambda: _refit(sweep, journal),
        "export": lambda: export(sweep, journal),
        "test": lambda: test(sweep, journal),
        "register": lambda: register(sweep, journal),
    }


def _search(sweep: Sweep, journal: Journal, plan: dict[str, Any]) -> dict[str, Any]:
    from reid_tune.sweep.runner import run_all

    levels = tuple(plan["rungs"])
    source = Search(sweep, journal, levels)
    run_all(source, place(sweep.file.resources, 1), 1, levels, sweep.folder / "ray")
    states = [trial.state for trial in journal.state.trials]
    return {name: states.count(name) for name in ("finished", "stopped", "failed")}


def _refit(sweep: Sweep, journal: Journal) -> dict[str, Any]:
    from reid_tune.sweep.runner import run_all

    workers = sweep.file.resources.refit_workers
    source = Refit(sweep, journal)
    run_all(source, place(sweep.file.resources, workers), workers, (), sweep.folder / "ray")
    return {run: journal.state.runs[run].state for run in source.todo}


def _resources(sweep: Sweep) -> dict[str, Any]:
    placement = place(sweep.file.resources, 1)
    place(sweep.file.resources, sweep.file.resources.refit_workers)
    return {"at_once": placement.at_once, "cpus_per_trial": placement.cpus, "gpus_per_trial": placement.gpus}


def _begin(sweep: Sweep, journal: Journal) -> None:
    resumed = bool(journal.past)
    if resumed:
        _check_same(sweep, journal)
    else:
        journal.emit(
            "sweep",
            name=sweep.file.name,
            uid=secrets.token_hex(8),
            tracking_uri=tracking_uri(),
            sweep=sweep.file.model_dump(mode="json"),
            spec=sweep.experiment.parameters(),
        )
    journal.emit("driver", pid=os.getpid(), host=socket.gethostname(), resumed=resumed, command=sys.argv)


def _check_same(sweep: Sweep, journal: Journal) -> None:
    import json

    old, new = journal.state.header, sweep.file.model_dump(mode="json")
    spec = json.loads(json.dumps(sweep.experiment.parameters()))
    unlike = [
        f"{key}: {old['sweep'].get(key)!r} there, {new[key]!r} now"
        for key in new
        if key not in _FREE and old["sweep"].get(key) != new[key]
    ]
    unlike += [
        f"{key}: {old['spec'].get(key)!r} there, {spec[key]!r} now" for key in spec if old["spec"].get(key) != spec[key]
    ]
    if unlike:
        raise InputError(
            f"the sweep {sweep.file.name} in {sweep.folder} is another one ({'; '.join(unlike[:3])}): "
            "set another name with sweep.name=NAME."
        )
