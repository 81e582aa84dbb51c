"""Going on with a sweep: what must be the same, and the command that does it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_tune.checkpoints.encryption import decrypt
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import flatten
from reid_tune.errors import InputError
from reid_tune.journal.events import StagesReopened
from reid_tune.journal.journal import Journal
from reid_tune.journal.requests import pending_requests
from reid_tune.journal.stages import STAGES, ResumeMode
from reid_tune.journal.state import SweepState
from reid_tune.journal.store import load_state, resume_command
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.schema import SweepFile
from reid_tune.search_space.space import plain_values

__all__ = ["load_resumable_state", "reopen_stages", "stages_to_redo", "require_same_key"]

# Parts of a sweep file that a resumed sweep may change; what the spec says is compared, not where it lies.
_FREE = {"resources", "storage", "budget", "keep", "spec"}
_SHOWN = 6  # differences of two sweeps in one message


def load_resumable_state(sweep: SweepConfig, resume: ResumeMode) -> SweepState:
    """The state of a sweep that has begun, if this one may go on with it.

    Raises:
        InputError: it may not be resumed, or is another sweep.
    """
    state = load_state(sweep.file.name, str(sweep.folder.parent))
    old = flatten(SweepFile.model_validate(state.header.sweep).model_dump(mode="json", exclude=_FREE))
    new = flatten(sweep.file.model_dump(mode="json", exclude=_FREE))
    unlike = _differences(old, new) + _differences(state.header.spec, plain_values(sweep.experiment))
    if unlike:
        more = f"; and {len(unlike) - _SHOWN} more" if len(unlike) > _SHOWN else ""
        raise InputError(
            f"the sweep {sweep.file.name} in {sweep.location} is another one ({'; '.join(unlike[:_SHOWN])}{more}): "
            "give the file and the overrides that it began with, or another name with sweep.name=NAME."
        )
    if resume == "never":
        raise InputError(
            f"the sweep {sweep.file.name} exists in {sweep.location}: continue it with "
            f"'{resume_command()}', or set another name with sweep.name=NAME."
        )
    return state


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}: {old.get(key, 'nothing')!r} there, {new.get(key, 'nothing')!r} now"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def stages_to_redo(sweep: SweepConfig, state: SweepState, start: str | None) -> tuple[str, ...]:
    """The stages to be done again: those from `start` on, or all from the search on where the budget now allows more.

    Raises:
        InputError: a stage before `start` is not done.
    """
    found = state.stages.get("search")
    if start is None and found and (_allows_more(sweep, state, found) or _enqueued(sweep.folder, state)):
        start = "search"
    if start is None:
        return ()
    missing = [stage for stage in STAGES[: STAGES.index(start)] if stage not in state.stages]
    if missing:
        raise InputError(f"--from {start}: the stage {missing[0]} of {sweep.file.name} is not done: leave --from out.")
    return tuple(stage for stage in STAGES[STAGES.index(start) :] if stage in state.stages)


def _enqueued(folder: Path, state: SweepState) -> bool:
    return any(request.kind == "enqueue" and request.name not in state.requests for request in pending_requests(folder))


def _allows_more(sweep: SweepConfig, state: SweepState, found: Mapping[str, Any]) -> bool:
    """Whether what ended the search is larger now."""
    key, budget = found["ended_by"], sweep.file.budget
    if key == "trials":
        return len(state.trials) < budget.trials
    now, before = getattr(budget, key), found["budget"][key]
    return now is None or now > before


def reopen_stages(journal: Journal, stages: Sequence[str]) -> None:
    """Forget the results of stages: their refits are trained anew, and repeats that failed."""
    dropped = [
        run.name
        for run in journal.state.runs.values()
        if ("refit" in stages and run.name.startswith("refit/"))
        or ("confirm" in stages and run.name.startswith("confirm/") and run.state == "failed")
    ]
    journal.emit(StagesReopened(stages=list(stages), runs=dropped))
    for run in dropped:
        journal.files.discard(run)
    journal.files.flush()  # Before there are new files in their places.


def require_same_key(sweep: SweepConfig, state: SweepState) -> None:
    """Refuse another key than the one that the sweep began with, which opens the `lock` of its log.

    Raises:
        InputError: another key, or none where there was one, or one where there was none.
    """
    name, key, lock = f"the sweep {sweep.file.name}", find_passphrase(sweep.experiment), state.header.lock
    if lock is not None:
        decrypt(bytes.fromhex(lock), key, name)
    elif key is not None:
        raise InputError(f"{name} began without an encryption key: resume it without one, or set another sweep.name.")
