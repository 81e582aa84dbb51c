"""Count of the evaluations of a test set; every evaluation makes the next one less independent of earlier choices."""

from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import StageDone
from reid_tune.tables import format_count

__all__ = ["count_test_evaluations", "evaluation_count_sentence"]


def count_test_evaluations(storage: Path, fingerprint: str) -> int:
    """Return how many finished stages `test`, of all sweeps in a folder, have scored models on a test set.

    A stage that was done again counts again. Sweeps that cannot be read are skipped.

    Args:
        storage: Folder of the sweeps.
        fingerprint: Fingerprint of the test set, as in the stages' results: `{"data": {test set's name: fingerprint}}`.
    """
    return sum(fingerprint in digests for log in storage.glob(f"*/{EVENTS}") for digests in _test_set_digests(log))


def evaluation_count_sentence(count: int, storage: str) -> str:
    """Return the count as a sentence."""
    return f"this test set has been evaluated {format_count(count, 'time')} by sweeps in {storage}"


def _test_set_digests(log: Path) -> list[list[str]]:
    """Return the fingerprints of the test sets of each finished stage `test` of a sweep."""
    try:
        events = read_events(log)
    except (InputError, OSError):
        return []
    results = [event.result for event in events if isinstance(event, StageDone) and event.stage == "test"]
    return [list(result.get("data", {}).values()) for result in results]
