"""Begin or resume a sweep: what must be unchanged, which stages are done again, and the first events."""

import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_tune.checkpoints.encryption import decrypt, encrypt
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import canonical_key, flatten
from reid_tune.errors import InputError
from reid_tune.journal.events import DriverStarted, SpaceChanged, StagesReopened, SweepHeader
from reid_tune.journal.journal import Journal
from reid_tune.journal.provenance import collect_environment
from reid_tune.journal.requests import pending_requests
from reid_tune.journal.stages import STAGES, ResumeMode
from reid_tune.journal.state import SweepState
from reid_tune.journal.sweep_lookup import load_state, resume_command
from reid_tune.search.target import find_target_trial
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.schema import SweepFile
from reid_tune.search_space.space import plain_values
from reid_tune.tracking.mlflow_names import user
from reid_tune.tracking.store import redact, tracking_uri

__all__ = [
    "load_resumable_state",
    "make_header",
    "record_driver_start",
    "record_space_change",
    "reopen_stages",
    "require_same_key",
    "space_changes",
    "stages_to_redo",
    "unsearched_space",
]

# Sections of a search-space file that may change in a resumed sweep. The spec is compared by content, not by path, and
# the space key by key.
_CHANGEABLE = {"resources", "storage", "budget", "target", "keep", "keep_paused", "spec", "space"}
_MAX_DIFFERENCES = 6  # of two sweeps, in one message
_ENDS_OF_SPACE = {"space", "patience", "min_gain"}  # reasons for the end of a search that hold for its space only


def load_resumable_state(sweep: SweepConfig, resume: ResumeMode, accept_space: bool = False) -> SweepState:
    """Return the state of a sweep that has begun.

    Args:
        sweep: Sweep as loaded now.
        resume: `auto` to resume an existing sweep, `never` to reject it.
        accept_space: Whether ranges may differ and keys may be added.

    Raises:
        InputError: it may not be resumed, or the sweep in the folder has another file or spec.
    """
    state = load_state(sweep.file.name, str(sweep.folder.parent))
    old = flatten(SweepFile.model_validate(state.header.sweep).model_dump(mode="json", exclude=_CHANGEABLE))
    new = flatten(sweep.file.model_dump(mode="json", exclude=_CHANGEABLE))
    differences = _differences(old, new) + _differences(state.header.spec, plain_values(sweep.experiment))
    differences += _removed_keys(sweep, state)
    if differences:
        omitted = len(differences) - _MAX_DIFFERENCES
        shown = differences[:_MAX_DIFFERENCES] + ([f"and {omitted} more"] if omitted > 0 else [])
        raise InputError(
            f"the sweep {sweep.file.name} in {sweep.location} is another one ({'; '.join(shown)}): "
            "give the file and the overrides that it began with, or set another name with sweep.name=NAME."
        )
    if resume == "never":
        raise InputError(
            f"the sweep {sweep.file.name} exists in {sweep.location}: continue it with "
            f"'{resume_command()}', or set another name with sweep.name=NAME."
        )
    changes = space_changes(sweep, state)
    if changes and not accept_space:
        raise InputError(
            f"the space of the sweep {sweep.file.name} in {sweep.location} has changed ({'; '.join(changes)}): "
            "add --accept-space to continue with the new space, or give the file that it began with."
        )
    return state


def space_changes(sweep: SweepConfig, state: SweepState) -> list[str]:
    """Return a text for each key whose ranges in the file differ from those of the log, or that is new in the file."""
    old, new = _space(state.header.sweep), _space(sweep.file.model_dump(mode="json"))
    return _differences({key: entry for key, entry in old.items() if key in new}, new)


def _removed_keys(sweep: SweepConfig, state: SweepState) -> list[str]:
    """Return a text for each key that the file does not search any more: the trials that have it would be others."""
    removed = _space(state.header.sweep).keys() - _space(sweep.file.model_dump(mode="json")).keys()
    return [f"space.{key}: searched there, not now" for key in sorted(removed)]


def _space(file: Mapping[str, Any]) -> dict[str, Any]:
    return {canonical_key(key): entry for key, entry in file["space"].items()}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}: {_describe(old, key)} there, {_describe(new, key)} now"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def _describe(tree: Mapping[str, Any], key: str) -> str:
    return repr(tree[key]) if key in tree else "nothing"


def stages_to_redo(sweep: SweepConfig, state: SweepState, start: str | None) -> tuple[str, ...]:
    """Return the stages to do again.

    These are `start` and all later ones. Without `start` they are the search and all later ones if the budget or the
    space now allows further trials or a user has enqueued one, confirm and all later ones if the budget now allows
    further repeats, otherwise none.

    Raises:
        InputError: a stage before `start` is not done.
    """
    result = state.stages.get("search")
    if start is None and result and (_allows_more_trials(sweep, state, result) or _has_enqueued(sweep.folder, state)):
        start = "search"
    elif start is None and _is_larger(sweep, state.stages.get("confirm", {})):
        start = "confirm"
    if start is None:
        return ()
    missing = [stage for stage in STAGES[: STAGES.index(start)] if stage not in state.stages]
    if missing:
        raise InputError(f"--from {start}: the stage {missing[0]} of {sweep.file.name} is not done: leave --from out.")
    return tuple(stage for stage in STAGES[STAGES.index(start) :] if stage in state.stages)


def unsearched_space(sweep: SweepConfig, state: SweepState, redone: Sequence[str]) -> str:
    """Return a sentence if the space has changed and the search has ended all the same, otherwise an empty text.

    Args:
        redone: Stages that are done again.
    """
    if "search" in redone or "search" not in state.stages or not space_changes(sweep, state):
        return ""
    reason = state.stages["search"]["ended_by"]
    key = "target" if reason == "target" else f"budget.{reason}"
    advice = "give the command without --from" if reason in _ENDS_OF_SPACE else f"raise {key}"
    return f"the space has changed, but the search has ended ({reason}) and does not continue: {advice} to search it."


def _has_enqueued(folder: Path, state: SweepState) -> bool:
    return any(request.kind == "enqueue" and request.name not in state.requests for request in pending_requests(folder))


def _allows_more_trials(sweep: SweepConfig, state: SweepState, result: Mapping[str, Any]) -> bool:
    """Whether the limit, the target or the space that ended the search is another one now."""
    if result["ended_by"] in _ENDS_OF_SPACE and space_changes(sweep, state):
        return True
    if result["ended_by"] == "trials":
        return len(state.trials) < sweep.file.budget.trials
    if result["ended_by"] == "target":
        return find_target_trial(state, sweep.file.target) is None
    if result["ended_by"] == "min_gain":
        now = sweep.file.budget.min_gain
        return now is None or now < result["budget"]["patience"]["min_gain"]
    return _is_larger(sweep, result)


def _is_larger(sweep: SweepConfig, result: Mapping[str, Any]) -> bool:
    """Whether the key of `budget` that has ended a stage, if one has, is larger now."""
    key = str(result.get("ended_by"))
    if key not in result.get("budget", {}):
        return False
    now, before = getattr(sweep.file.budget, key), result["budget"][key]
    return not isinstance(now, int | float) or now > before


def reopen_stages(journal: Journal, stages: Sequence[str]) -> None:
    """Drop the results of stages, so that their refits and failed repeats are trained again."""
    dropped = [
        run.name
        for run in journal.state.runs.values()
        if ("refit" in stages and run.name.startswith("refit/"))
        or ("confirm" in stages and run.name.startswith("confirm/") and run.state == "failed")
    ]
    journal.emit(StagesReopened(stages=list(stages), runs=dropped))
    for run in dropped:
        journal.files.discard(run)
    journal.files.flush()  # Before new files have the same names.


def require_same_key(sweep: SweepConfig, state: SweepState) -> None:
    """Reject a key that is not the one with which the sweep began. That one decrypts the `lock` of the log.

    Raises:
        InputError: the key is another one, is missing, or is given for a sweep that began without a key.
    """
    name, key, lock = f"the sweep {sweep.file.name}", find_passphrase(sweep.experiment), state.header.lock
    if lock is not None:
        decrypt(bytes.fromhex(lock), key, name)
    elif key is not None:
        raise InputError(f"{name} began without an encryption key: resume it without one, or set another sweep.name.")


def make_header(sweep: SweepConfig) -> SweepHeader:
    """Return the first event of a new sweep's log."""
    uid, key = secrets.token_hex(8), find_passphrase(sweep.experiment)
    return SweepHeader(
        name=sweep.file.name,
        uid=uid,
        lock=encrypt(uid.encode(), key).hex() if key is not None else None,
        tracking_uri=redact(tracking_uri()),
        sweep=sweep.file.model_dump(mode="json"),
        spec=sweep.experiment.parameters(),
        weights=dict(sweep.weights_references),
    )


def record_driver_start(sweep: SweepConfig, journal: Journal, environment: dict[str, Any] | None = None) -> None:
    """Record the start of this process as driver, after the header if the sweep begins.

    Args:
        environment: That of the last driver, if this process will compute nothing; None to collect that of this one.
    """
    if not journal.earlier_events:
        journal.emit(make_header(sweep))
    journal.emit(
        DriverStarted(
            pid=os.getpid(),
            host=socket.gethostname(),
            user=user(),
            resumed=bool(journal.earlier_events),
            command=sys.argv,
            environment=collect_environment(sweep.experiment) if environment is None else environment,
        )
    )


def record_space_change(sweep: SweepConfig, journal: Journal, pretrained: Mapping[str, str]) -> None:
    """Record a change of the space unless the search has ended; call it after `reopen_stages`.

    Args:
        pretrained: Digest of each file of pretrained weights.
    """
    if "search" not in journal.state.stages and space_changes(sweep, journal.state):
        space = sweep.file.model_dump(mode="json")["space"]
        weights = dict(sweep.weights_references)
        journal.emit(SpaceChanged(space=space, weights=weights, pretrained=dict(pretrained)))
