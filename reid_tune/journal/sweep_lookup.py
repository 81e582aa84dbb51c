"""Sweeps by name: their folder, their state, and the command that resumes one."""

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.state import SweepState, trial_run

__all__ = ["load_state", "resume_command", "split_run_reference", "sweep_folder", "unknown_sweep_error"]

_PROGRAMS = ("reid-tune", "__main__.py")


def sweep_folder(name: str, storage: str = "runs") -> Path:
    """Return the folder of a sweep.

    Raises:
        InputError: There is no sweep of this name.
    """
    folder = Path(storage) / name
    if not (folder / EVENTS).is_file():
        names = sorted(log.parent.name for log in Path(storage).glob(f"*/{EVENTS}"))
        raise unknown_sweep_error(name, Path(storage).absolute(), names)
    return folder


def unknown_sweep_error(name: str, storage: object, names: Iterable[str]) -> InputError:
    """Return the error for a sweep that does not exist.

    Args:
        storage: Folder or address that was searched.
        names: Names of the sweeps in it.
    """
    return InputError(f"there is no sweep {name!r} in {storage}; sweeps there: {', '.join(names) or 'none'}.")


def load_state(name: str, storage: str = "runs") -> SweepState:
    """Return the state of a sweep, running or not.

    Raises:
        InputError: There is no sweep of this name, it has not started, or its log is damaged.
    """
    return read_sweep(sweep_folder(name, storage))[0]


def split_run_reference(text: str) -> tuple[str, str]:
    """Return the names of the sweep and of the run in `NAME`, `NAME/7` or `NAME/refit/winner`.

    The run is empty for `NAME`.
    """
    name, _, run = text.partition("/")
    return name, trial_run(int(run)) if re.fullmatch(r"\d{1,9}", run) else run


def resume_command() -> str:
    """Return the command line of this process with `--resume auto`; of another program the call in Python."""
    if Path(sys.argv[0]).name not in _PROGRAMS:
        return "run_sweep(..., resume='auto')"
    words = [word for word in sys.argv[1:] if not word.startswith("--resume=")]
    if "--resume" in words:
        option = words.index("--resume")
        del words[option : option + 2]
    return shlex.join(["reid-tune", *words, "--resume", "auto"])
