"""The driver: stage after stage, each recorded in the log."""

import os
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from rich.console import Console

from reid_tune.checkpoints.encryption import encrypt
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.errors import InputError
from reid_tune.execution.cluster.node_checks import check_nodes
from reid_tune.execution.cluster.session import ray_session
from reid_tune.execution.placement import compute_placement
from reid_tune.execution.probe import run_probe
from reid_tune.execution.run_source import RunSource
from reid_tune.execution.stage_resources import StageResources, find_capacity, find_placement, resolve_stage_resources
from reid_tune.execution.stage_task import StageFunction, run_stage_on_gpu
from reid_tune.journal.costs import EpochTiming
from reid_tune.journal.event_log import read_events, read_header
from reid_tune.journal.events import (
    ArtifactWritten,
    DriverStarted,
    Event,
    StageDone,
    StageStarted,
    SweepHeader,
)
from reid_tune.journal.journal import EVENTS, Journal
from reid_tune.journal.provenance import collect_environment
from reid_tune.journal.s3_sweep_store import S3SweepStore
from reid_tune.journal.stages import STAGES, ResumeMode
from reid_tune.journal.state import SweepState
from reid_tune.journal.sweep_store import SweepStore
from reid_tune.report.html import PAGE, write_page
from reid_tune.report.live import LiveView
from reid_tune.report.markdown import SweepPage
from reid_tune.search.budget import BudgetTracker, require_gpus_for_gpu_hours
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.plan import make_plan
from reid_tune.sweep.pretrained import pinned_pretrained_weights
from reid_tune.sweep.resume import load_resumable_state, reopen_stages, require_same_key, stages_to_redo
from reid_tune.sweep.stages.confirm import choose_winner, make_confirm_runs
from reid_tune.sweep.stages.export import export_finalists
from reid_tune.sweep.stages.preflight import PreflightResult, run_preflight
from reid_tune.sweep.stages.refit import make_refit_runs
from reid_tune.sweep.stages.register import register
from reid_tune.sweep.stages.rerank import choose_settings
from reid_tune.sweep.stages.search import TrialSource
from reid_tune.sweep.stages.test_set import evaluate_finalists
from reid_tune.tasks.split import SPLIT, write_split_lists
from reid_tune.tracking.mlflow_names import user
from reid_tune.tracking.sender import Sender, followed
from reid_tune.tracking.store import fault, public, tracking_uri, with_credentials

__all__ = ["plan_sweep", "run_sweep"]


def plan_sweep(sweep: SweepConfig, until: str, address: str | None = None) -> dict[str, Any]:
    """All checks and the plan, without writing anything but decoded images into their cache.

    Raises:
        InputError: the first thing that would make the sweep fail.
    """
    key = find_passphrase(sweep.experiment)
    open_sweep_files(sweep)
    with pinned_pretrained_weights(sweep, None) as own:
        checked = run_preflight(own, _stages(until), address)
        with ray_session(address, key):
            check_nodes(own)
            return {"name": own.file.name, "folder": own.location} | _planned(own, checked)


def run_sweep(
    sweep: SweepConfig, *, resume: ResumeMode, until: str, start: str | None = None, address: str | None = None
) -> SweepState:
    """Run all stages up to `until`, each once in the life of a sweep, and return the state behind them.

    Args:
        resume: `never` refuses a name that exists; `auto` begins or continues.
        start: A stage from which on all is done again in a sweep that exists; its trials, and repeats that finished,
            stay.
        address: Of a Ray cluster, see `cluster`; without one Ray is started on this machine.

    Raises:
        InputError: file, spec, data, name or resources are wrong.
        InfrastructureError: the disk is full, or Ray is gone; resumed, the sweep goes on where it was.
        FailedRun: no trial could be finished.
    """
    files = open_sweep_files(sweep)
    past = read_events(sweep.folder / EVENTS)
    with pinned_pretrained_weights(sweep, read_header(sweep.folder / EVENTS)) as own:
        return _run(own, files, past, resume, until, start, address)


def _run(
    sweep: SweepConfig,
    files: SweepStore,
    past: list[Event],
    resume: ResumeMode,
    until: str,
    start: str | None,
    address: str | None,
) -> SweepState:
    """See `run_sweep`; `past` has the events of the log."""
    stages, again = _stages(until), tuple[str, ...]()
    if past:
        state = load_resumable_state(sweep, "auto" if start else resume)
        again = stages_to_redo(sweep, state, start)
        stages = tuple(stage for stage in stages if stage not in state.stages or stage in again)
        if not stages:
            return state
        require_same_key(sweep, state)
    elif start not in (None, STAGES[0]):
        raise InputError(f"--from {start}: there is no sweep {sweep.file.name} in {sweep.location} yet: leave it out.")
    key = find_passphrase(sweep.experiment)
    checked = run_preflight(sweep, stages, address)
    console = Console(file=sys.stderr)
    if found := fault(with_credentials(state.header.tracking_uri) if past else tracking_uri()):
        _warn(console, f"{found} The log keeps what MLflow misses; the stage register will need it.")
    if sweep.weights_reference:
        _warn(
            console,
            f"where {sweep.weights_reference} was trained on images of this training set, it knows the held-out identities, and "
            "their scores are too good: compare on other data.",
        )
    with ray_session(address, key):
        check_nodes(sweep)
        # Before the log begins, so that a sweep that cannot run leaves nothing behind.
        planned = _planned(sweep, checked) if STAGES[0] in stages else checked.as_dict()
        return SweepDriver(sweep, files, checked, planned, console).run(stages, again, len(past))


def _stages(until: str) -> tuple[str, ...]:
    return STAGES[: STAGES.index(until) + 1]


def _planned(sweep: SweepConfig, checked: PreflightResult) -> dict[str, Any]:
    """What the checks found, with the resources of a run and the plan; Ray must be there."""
    resources = sweep.file.resources
    trials, refits = (
        resolve_stage_resources(sweep, resources.workers),
        resolve_stage_resources(sweep, resources.refit_workers),
    )
    require_gpus_for_gpu_hours(sweep, trials)
    measured = run_probe(sweep, compute_placement(resources, resources.workers), resources.workers)
    planned = make_plan(sweep, checked.levels, measured, trials, refits)
    return checked.as_dict() | planned | {"warnings": checked.warnings + planned["warnings"]}


class SweepDriver:
    """One process that drives a sweep."""

    def __init__(
        self, sweep: SweepConfig, files: SweepStore, checked: PreflightResult, planned: dict[str, Any], console: Console
    ) -> None:
        self.sweep, self.files, self.console = sweep, files, console
        self.checked, self.planned = checked, planned
        for warning in planned["warnings"]:
            _warn(console, warning)

    def run(self, stages: Sequence[str], again: Sequence[str], known: int) -> SweepState:
        """Run the stages of a sweep whose log had so many events when they were chosen."""
        view = LiveView(self.console, self.sweep.file.budget.trials)
        with Journal(self.files, partial(_warn, self.console)) as self.journal, view:
            if len(self.journal.past) != known:
                raise InputError(
                    f"another driver has changed {self.sweep.location} in the meantime: give the command again."
                )
            self.journal.listeners.append(view)
            self._begin()
            if again:
                reopen_stages(self.journal, again)
            with _tracked(self.sweep, self.journal, self.console) as sender:
                view.tracking = lambda: sender.words
                for stage in stages:
                    self.journal.emit(StageStarted(stage=stage))
                    self.journal.emit(StageDone(stage=stage, result=getattr(self, f"_{stage}")()))
                self._page()
            return self.journal.state

    def _page(self) -> None:
        try:
            write_page(self.sweep.folder)
        except Exception as error:  # A sweep that is done does not fail over its page.
            _warn(self.console, f"there is no page, make it with reid-tune report: {error}")
        else:
            self.journal.emit(ArtifactWritten(path=PAGE, folder=""))

    def _begin(self) -> None:
        sweep, journal = self.sweep, self.journal
        if not journal.past:
            uid, key = secrets.token_hex(8), find_passphrase(sweep.experiment)
            journal.emit(
                SweepHeader(
                    name=sweep.file.name,
                    uid=uid,
                    lock=encrypt(uid.encode(), key).hex() if key is not None else None,
                    tracking_uri=public(tracking_uri()),
                    sweep=sweep.file.model_dump(mode="json"),
                    spec=sweep.experiment.parameters(),
                    weights=sweep.weights_reference or None,
                )
            )
        journal.emit(
            DriverStarted(
                pid=os.getpid(),
                host=socket.gethostname(),
                user=user(),
                resumed=bool(journal.past),
                command=sys.argv,
                environment=collect_environment(sweep.experiment),
            )
        )

    def _preflight(self) -> dict[str, Any]:
        write_split_lists(self.sweep.experiment, self.sweep.folder / SPLIT)
        return self.planned

    def _search(self) -> dict[str, Any]:
        resources = self.sweep.file.resources
        crew, refits = (
            resolve_stage_resources(self.sweep, resources.workers),
            resolve_stage_resources(self.sweep, resources.refit_workers),
        )
        require_gpus_for_gpu_hours(self.sweep, crew)
        probed = EpochTiming(**self.journal.state.stages["preflight"]["timing"])
        budget_tracker = BudgetTracker(self.sweep, crew, refits, probed)
        for event in read_events(self.journal.path):
            budget_tracker.apply(event, self.journal.state)
        self.journal.listeners.append(budget_tracker.apply)
        search = TrialSource(self.sweep, self.journal, self.checked.levels, crew.per_run, budget_tracker)
        self._run(search, crew, self.checked.levels)
        states = [trial.state for trial in self.journal.state.trials]
        counts = {name: states.count(name) for name in ("finished", "stopped", "failed")}
        return counts | {"ended_by": search.end_reason(), "budget": self.sweep.file.budget.model_dump(mode="json")}

    def _confirm(self) -> dict[str, Any]:
        crew = resolve_stage_resources(self.sweep, self.sweep.file.resources.workers)
        self._run(make_confirm_runs(self.sweep, self.journal, crew.per_run), crew)
        return self._score("confirm", choose_winner)

    def _rerank(self) -> dict[str, Any]:
        return self._score("rerank", choose_settings)

    def _refit(self) -> dict[str, Any]:
        crew = resolve_stage_resources(self.sweep, self.sweep.file.resources.refit_workers)
        source = make_refit_runs(self.sweep, self.journal, crew.per_run)
        self._run(source, crew)
        return {run: self.journal.state.runs[run].state for run in source.runs}

    def _export(self) -> dict[str, Any]:
        return self._score("export", export_finalists)

    def _test(self) -> dict[str, Any]:
        return self._score("test", evaluate_finalists)

    def _register(self) -> dict[str, Any]:
        return register(self.sweep, self.journal)

    def _score(self, name: str, stage: StageFunction) -> dict[str, Any]:
        placement = find_placement(self.sweep, self.sweep.file.resources.workers)
        return run_stage_on_gpu(name, stage, self.sweep, self.journal, placement)

    def _run(self, source: RunSource, crew: StageResources, validate_at: tuple[int, ...] = ()) -> None:
        from reid_tune.execution.tune_runner import run_all

        timeout = 60 * self.sweep.file.resources.timeout_minutes
        workers, scratch = crew.per_run.workers, self.sweep.folder / "ray"
        remote = self.sweep.remote / "ray" if self.sweep.remote else None
        run_all(source, lambda: find_capacity(self.sweep, workers), workers, validate_at, scratch, timeout, remote)


def _tracked(sweep: SweepConfig, journal: Journal, console: Console) -> AbstractContextManager[Sender]:
    """Send the log to MLflow during the block, and close it as the block ends."""
    name, storage = sweep.file.name, sweep.file.storage
    again = f"reid-tune sync {name}" + (f" --storage {storage}" if storage != "runs" else "")
    return followed(
        journal.path,
        with_credentials(journal.state.header.tracking_uri),
        journal.emit,
        partial(_warn, console),
        again,
        SweepPage,
    )


def _warn(console: Console, text: str) -> None:
    console.print(f"warning: {text}", style="yellow", markup=False, emoji=False, highlight=False, soft_wrap=True)


def open_sweep_files(sweep: SweepConfig) -> SweepStore:
    """A sweep's files for its driver, as they are by now.

    Raises:
        InputError: the bucket is not there, or access is denied.
        InfrastructureError: it does not answer.
    """
    if sweep.remote is None:
        return SweepStore(sweep.folder)
    files = S3SweepStore(sweep.remote, sweep.folder)
    files.pull()
    return files
