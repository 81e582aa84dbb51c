"""Sweeps by name: their folder, their state, and the command that resumes one."""

import re
import shlex
import sys
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.journal.journal import EVENTS
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.state import SweepState, trial_run

__all__ = ["load_state", "resume_command", "split_run_reference", "sweep_folder"]


def sweep_folder(name: str, storage: str = "runs") -> Path:
    """The folder of a sweep by its name.

    Raises:
        InputError: there is no such sweep.
    """
    folder = Path(storage) / name
    if not (folder / EVENTS).is_file():
        known = sorted(found.parent.name for found in Path(storage).glob(f"*/{EVENTS}"))
        raise InputError(
            f"there is no sweep {name!r} in {Path(storage).absolute()}; sweeps there: {', '.join(known) or 'none'}."
        )
    return folder


def load_state(name: str, storage: str = "runs") -> SweepState:
    """The state of a sweep by its name, running or not.

    Raises:
        InputError: there is no such sweep, it has not begun, or its log is damaged.
    """
    return read_sweep(sweep_folder(name, storage))[0]


def split_run_reference(text: str) -> tuple[str, str]:
    """Sweep and run that `NAME`, `NAME/7` or `NAME/refit/winner` names; the run is empty for `NAME`."""
    name, _, run = text.partition("/")
    return name, trial_run(int(run)) if re.fullmatch(r"\d{1,9}", run) else run


def resume_command() -> str:
    """The command line of this process with `--resume auto`."""
    words = [word for word in sys.argv[1:] if not word.startswith("--resume=")]
    if "--resume" in words:
        place = words.index("--resume")
        del words[place : place + 2]
    return shlex.join(["reid-tune", *words, "--resume", "auto"])
