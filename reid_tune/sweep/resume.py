"""Going on with a sweep: what must be the same, and the command that does it."""

import json
import shlex
import sys
from typing import Literal

from reid_tune.checkpoints.encryption import decrypt
from reid_tune.errors import InputError
from reid_tune.spec.secret import passphrase
from reid_tune.sweep.file import Sweep
from reid_tune.sweep.report.summary import load_state
from reid_tune.sweep.state import SweepState

__all__ = ["Resume", "existing_state", "require_key", "resume_command"]

Resume = Literal["never", "auto"]

# Parts of a sweep file that a resumed sweep may change.
_FREE = {"resources", "storage", "budget", "keep"}


def existing_state(sweep: Sweep, resume: Resume) -> SweepState:
    """The state of a sweep that has begun, if this one may go on with it.

    Raises:
        InputError: it may not be resumed, or is another sweep.
    """
    if resume == "never":
        raise InputError(
            f"the sweep {sweep.file.name} exists in {sweep.folder}: continue it with "
            f"'{resume_command()}', or set another name with sweep.name=NAME."
        )
    state = load_state(sweep.file.name, str(sweep.folder.parent))
    old, old_spec = state.header["sweep"], state.header["spec"]
    new = sweep.file.model_dump(mode="json", exclude=_FREE)
    spec = json.loads(json.dumps(sweep.experiment.parameters()))
    unlike = [f"{key}: {old.get(key)!r} there, {new[key]!r} now" for key in new if old.get(key) != new[key]]
    unlike += [
        f"{key}: {old_spec.get(key)!r} there, {spec[key]!r} now" for key in spec if old_spec.get(key) != spec[key]
    ]
    if unlike:
        raise InputError(
            f"the sweep {sweep.file.name} in {sweep.folder} is another one ({'; '.join(unlike[:3])}): "
            "give the file and the overrides that it began with, or another name with sweep.name=NAME."
        )
    return state


def require_key(sweep: Sweep, state: SweepState) -> None:
    """Refuse another key than the one that the sweep began with, which opens the `lock` of its log.

    Raises:
        InputError: another key, or none where there was one, or one where there was none.
    """
    name, key, lock = f"the sweep {sweep.file.name}", passphrase(sweep.experiment), state.header.get("lock")
    if lock is not None:
        decrypt(bytes.fromhex(lock), key, name)
    elif key is not None:
        raise InputError(f"{name} began without an encryption key: resume it without one, or set another sweep.name.")


def resume_command() -> str:
    """The command line of this process with `--resume auto`."""
    words = [word for word in sys.argv[1:] if word != "--resume=auto"]
    if "--resume" not in words:
        words += ["--resume", "auto"]
    return shlex.join(["reid-tune", *words])
