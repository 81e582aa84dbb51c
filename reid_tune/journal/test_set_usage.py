"""How often sweeps have looked at a test set; every look makes its numbers less of a surprise."""

from collections.abc import Iterator
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.journal.event_log import Event, read_events
from reid_tune.journal.journal import EVENTS
from reid_tune.tables import format_count

__all__ = ["count_test_evaluations", "test_evaluations_sentence"]


def count_test_evaluations(storage: Path, fingerprint: str) -> int:
    """How many finished stages `test`, of all sweeps in a folder, have scored models on a test set.

    A stage that was done again counts again. Sweeps that cannot be read are passed over.

    Args:
        fingerprint: Of the test set, as the stages' results have it: `{"data": {test set's name: fingerprint}}`.
    """
    return sum(fingerprint in _data(event) for log in storage.glob(f"*/{EVENTS}") for event in _tests(log))


def test_evaluations_sentence(count: int, storage: str) -> str:
    """The count in words."""
    return f"this test set has been looked at {format_count(count, 'time')} by sweeps in {storage}"


def _tests(log: Path) -> Iterator[Event]:
    """The ends of a sweep's stages `test`."""
    try:
        events = read_events(log)
    except (InputError, OSError):
        return
    for event in events:
        if [event.get(key) for key in ("kind", "stage", "state")] == ["stage", "test", "done"]:
            yield event


def _data(event: Event) -> list[object]:
    """The fingerprints of the test sets; none in a log that holds something else there."""
    result = event.get("result")
    data = result.get("data") if isinstance(result, dict) else None
    return list(data.values()) if isinstance(data, dict) else []
