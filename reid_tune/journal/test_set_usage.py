"""Count of the evaluations of a test set; every evaluation makes the next one less independent of earlier choices.

Each evaluation has a unique id. It is stored in the user's state folder, which knows all storages and commands of this
machine, and those of a sweep also in its log, which a storage shares with other machines.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import TestSetEvaluated
from reid_tune.tables import format_count

__all__ = ["count_test_evaluations", "evaluation_count_sentence", "store_test_evaluation"]


def store_test_evaluation(uid: str, fingerprints: Iterable[str], command: str) -> None:
    """Store an evaluation in the user's state folder; if that cannot be written, a warning on stderr says so.

    Args:
        uid: Unique id of the evaluation. One that is stored again counts once.
        fingerprints: Fingerprints of the test sets.
        command: The command, for people who read the file.
    """
    line = json.dumps({"uid": uid, "time": time.time(), "command": command}) + "\n"
    try:
        folder = _state_folder()
        folder.mkdir(parents=True, exist_ok=True)
        for fingerprint in set(fingerprints):
            with (folder / f"{fingerprint}.jsonl").open("ab", buffering=0) as file:
                file.write(line.encode())  # one write, so that the lines of two processes do not mix
    except (OSError, RuntimeError) as error:
        print(
            f"warning: this evaluation of the test set is not counted on this machine ({error}): set XDG_STATE_HOME to "
            "a folder that can be written.",
            file=sys.stderr,
        )


def count_test_evaluations(fingerprint: str, storage: Path | None = None) -> int:
    """Return how often a test set has been evaluated, by this user on this machine or by a sweep in a storage.

    Sweeps and lines that cannot be read are skipped.

    Args:
        fingerprint: Fingerprint of the test set.
        storage: Folder of sweeps.
    """
    uids = set(_stored_uids(fingerprint))
    for log in storage.glob(f"*/{EVENTS}") if storage else ():
        uids |= {uid for uid, data in _logged_evaluations(log) if fingerprint in data.values()}
    return len(uids)


def evaluation_count_sentence(count: int, storage: str = "") -> str:
    """Return the count as a sentence.

    Args:
        count: Result of `count_test_evaluations`.
        storage: Name of the storage that was counted; empty without one.
    """
    where = f" or by sweeps in {storage}" if storage else ""
    return f"this test set has been evaluated {format_count(count, 'time')} by this user on this machine{where}"


def _state_folder() -> Path:
    configured = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = configured if configured.is_absolute() else Path("~/.local/state").expanduser()
    return base / "reid-tune" / "test-evaluations"


def _stored_uids(fingerprint: str) -> Iterator[str]:
    try:
        lines = (_state_folder() / f"{fingerprint}.jsonl").read_bytes().splitlines()
    except (OSError, RuntimeError):
        return
    for line in lines:
        try:
            yield str(json.loads(line)["uid"])
        except (ValueError, LookupError, TypeError, RecursionError):
            continue


def _logged_evaluations(log: Path) -> list[tuple[str, Mapping[str, str]]]:
    try:
        events = read_events(log)
    except (InputError, OSError):
        return []
    return [(event.uid, event.data) for event in events if isinstance(event, TestSetEvaluated)]
