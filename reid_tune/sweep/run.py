"""Plan or run a sweep: checks, pretrained weights and Ray, then the driver."""

import sys
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from reid_tune.config.encryption_key import find_passphrase
from reid_tune.errors import InputError
from reid_tune.execution.cluster.node_checks import check_nodes
from reid_tune.execution.cluster.session import ray_session
from reid_tune.journal.event_log import EVENTS, EventLog, read_events
from reid_tune.journal.events import ChampionRead, Event
from reid_tune.journal.lease import Lease
from reid_tune.journal.s3_sweep_store import S3SweepStore
from reid_tune.journal.stages import STAGES, ResumeMode, Stage
from reid_tune.journal.state import SweepState
from reid_tune.journal.sweep_store import SweepStore
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.weights import replace_texts
from reid_tune.sweep.champion import (
    describe_champion,
    read_champion,
    read_champion_again,
    recorded_champions,
    with_unseen_by_champion,
)
from reid_tune.sweep.driver import SweepDriver
from reid_tune.sweep.ending import complete_end, has_ended, print_warning
from reid_tune.sweep.plan import plan_from_probe, plan_until
from reid_tune.sweep.pretrained import pinned_pretrained_weights, recorded_weights
from reid_tune.sweep.resume import (
    load_resumable_state,
    require_same_key,
    space_changes,
    stages_to_redo,
    unsearched_space,
)
from reid_tune.sweep.stages.preflight import PreflightResult, run_preflight
from reid_tune.sweep.stages.validation_check import with_unseen_holdouts
from reid_tune.sweep.stages.weights_check import require_same_weights
from reid_tune.tracking.store import connection_error, tracking_uri, with_credentials

__all__ = ["open_sweep_files", "plan_sweep", "run_sweep"]


def plan_sweep(sweep: SweepConfig, until: Stage, address: str | None = None) -> dict[str, Any]:
    """Run all checks and return the plan of the stages up to the last one.

    Nothing is written except decoded images in their cache.

    Args:
        sweep: Sweep to plan.
        until: Last stage.
        address: Address of a Ray cluster, see `ray_session`; None for this machine.

    Raises:
        InputError: the sweep would fail; the first reason is given.
    """
    key = find_passphrase(sweep.experiment)
    open_sweep_files(sweep)
    with pinned_pretrained_weights(sweep, {}) as with_files:
        unseen = with_unseen_holdouts(with_files)
        champion = read_champion(unseen, tracking_uri())
        pinned = with_unseen_by_champion(unseen, champion)
        checks = _with_warnings(run_preflight(pinned, _stages_until(until), address), describe_champion(champion))
        with ray_session(address, key):
            check_nodes(pinned)
            plan = plan_until(plan_from_probe(pinned, checks, champion), until)
            references = {file: reference for reference, file in pinned.weights_references.items()}
            return {"name": pinned.file.name, "folder": pinned.location} | replace_texts(plan, references)


def run_sweep(
    sweep: SweepConfig,
    *,
    resume: ResumeMode,
    until: str,
    start: str | None = None,
    address: str | None = None,
    accept_space: bool = False,
    is_smoke_test: bool = False,
) -> SweepState:
    """Run all stages up to `until`, each once in the life of a sweep, and return the state after them.

    Args:
        sweep: Sweep to run.
        resume: `never` rejects a name that exists; `auto` begins or continues.
        until: Last stage.
        start: First of the stages that are done again in a sweep that exists; its trials and finished repeats are kept.
        address: Address of a Ray cluster, see `ray_session`; None to start Ray on this machine.
        accept_space: Whether the space of a sweep that exists may change, see `load_resumable_state`.
        is_smoke_test: Whether the scores do not matter, so that the weights may have seen the validation splits.

    Raises:
        InputError: file, spec, data, name or resources are invalid.
        InfrastructureError: the disk is full, or Ray is lost. The sweep can be resumed.
        RunFailedError: no trial could be finished.
    """
    files = open_sweep_files(sweep)
    past = read_events(sweep.folder / EVENTS)
    with pinned_pretrained_weights(sweep, recorded_weights(past)) as with_files:
        pinned, champion = (with_files, None) if is_smoke_test else _with_champion(with_files, past)
        state = load_resumable_state(pinned, "auto" if start else resume, accept_space) if past else None
        return _run_pinned(pinned, files, past, state, champion, until, start, address)


def _with_champion(sweep: SweepConfig, past: list[Event]) -> tuple[SweepConfig, ChampionRead]:
    """Return the sweep with validation splits that no weights have seen, and the champion: that of the log if any.

    The first champion of the log has decided about the splits, and the last one is compared.
    """
    unseen, recorded = with_unseen_holdouts(sweep), recorded_champions(past)
    champions = recorded or [read_champion(unseen, tracking_uri())]
    return with_unseen_by_champion(unseen, champions[0]), champions[-1]


def _run_pinned(
    sweep: SweepConfig,
    files: SweepStore,
    past: list[Event],
    state: SweepState | None,
    champion: ChampionRead | None,
    until: str,
    start: str | None,
    address: str | None,
) -> SweepState:
    """Run a sweep with pinned pretrained weights; `past` has the events of its log, and `state` is that after them."""
    console = Console(file=sys.stderr)
    stages, redone = _stages_until(until), tuple[str, ...]()
    if state:
        redone = stages_to_redo(sweep, state, start)
        if sentence := unsearched_space(sweep, state, redone):
            print_warning(console, sentence)
        stages = tuple(stage for stage in stages if stage not in state.stages or stage in redone)
        if not stages:
            return state if has_ended(sweep, past) else complete_end(sweep, files, console)
        _require_no_driver(files, console)
        require_same_key(sweep, state)
        if champion and "confirm" in redone:
            champion = read_champion_again(sweep, with_credentials(state.header.tracking_uri), champion)
    elif start not in (None, STAGES[0]):
        raise InputError(f"--from {start}: there is no sweep {sweep.file.name} in {sweep.location} yet: leave it out.")
    key = find_passphrase(sweep.experiment)
    is_new_space = state is None or STAGES[0] in stages or bool(space_changes(sweep, state))
    checks = _with_warnings(run_preflight(sweep, stages, address, is_new_space), describe_champion(champion))
    if state:
        require_same_weights(sweep, state.stages.get(STAGES[0], {}).get("pretrained", {}), checks.pretrained)
    error = connection_error(with_credentials(state.header.tracking_uri) if state else tracking_uri())
    if error:
        print_warning(console, f"{error} The event log keeps what MLflow misses; the stage register will need MLflow.")
    with ray_session(address, key):
        check_nodes(sweep)
        # Before the log begins, so that a sweep that cannot run leaves no files.
        plan = plan_from_probe(sweep, checks, champion) if STAGES[0] in stages else checks.as_dict()
        return SweepDriver(sweep, files, checks, plan, champion, console).run(stages, redone, len(past))


def _with_warnings(checks: PreflightResult, warnings: list[str]) -> PreflightResult:
    return replace(checks, warnings=checks.warnings + warnings)


def _require_no_driver(files: SweepStore, console: Console) -> None:
    """Reject a sweep that another process drives, before data is read and Ray is started.

    Raises:
        InputError: another driver is alive.
    """
    with EventLog(files.folder / EVENTS), Lease(files.objects, files.lock, wait=partial(print_warning, console)):
        pass


def _stages_until(until: str) -> tuple[str, ...]:
    return STAGES[: STAGES.index(until) + 1]


def open_sweep_files(sweep: SweepConfig) -> SweepStore:
    """Return the store of a sweep's files for its driver, updated from the object store.

    Raises:
        InputError: the bucket does not exist, or access is denied.
        InfrastructureError: the object store is unreachable.
    """
    if sweep.remote is None:
        return SweepStore(sweep.folder)
    files = S3SweepStore(sweep.remote, sweep.folder)
    files.pull()
    return files
