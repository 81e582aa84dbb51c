"""The end of a sweep after its last stage: the page, the driver's last event, and what MLflow still lacks."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial

from rich.console import Console

from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.events import ArtifactWritten, DriverEnded, Event
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import SweepState
from reid_tune.journal.sweep_store import SweepStore
from reid_tune.report.html import PAGE, write_page
from reid_tune.report.markdown import SweepPage
from reid_tune.search_space.load import SweepConfig
from reid_tune.storage.temporary_folder import remove_leftovers, temporary_root
from reid_tune.sweep.resume import record_driver_start
from reid_tune.tracking.cursor import Cursor
from reid_tune.tracking.sender import LogTarget, Sender, follow_log, send_remaining
from reid_tune.tracking.store import with_credentials

__all__ = ["complete_end", "has_ended", "print_warning", "track_sweep", "write_sweep_page"]


def has_ended(sweep: SweepConfig, events: Sequence[Event]) -> bool:
    """Return whether the last driver of a sweep has ended in order, and its files and events are where they belong.

    Args:
        events: All events of the sweep's log.
    """
    # The copy of a sweep in a bucket may have more than the bucket, and only its driver can tell.
    is_closed = sweep.remote is None and _is_closed(events)
    return is_closed and Cursor(sweep.folder / EVENTS, "", None).lag() == 0


def _is_closed(events: Sequence[Event]) -> bool:
    return isinstance(events[-1], DriverEnded) and events[-1].status == "FINISHED"


def complete_end(sweep: SweepConfig, files: SweepStore, console: Console) -> SweepState:
    """Do what a driver that was killed after its last stage has left to do, and return the sweep's state.

    Nothing is computed: neither Ray nor the data is needed.
    """
    with suppress(OSError):
        remove_leftovers(temporary_root())  # Otherwise the start of Ray does it.
    with Journal(files, partial(print_warning, console)) as journal:
        if _is_closed(journal.earlier_events):
            send_remaining(_target(sweep, journal, console))
        else:
            record_driver_start(sweep, journal, journal.state.environment)
            with track_sweep(sweep, journal, console):
                write_sweep_page(sweep, journal, console)
        return journal.state


def write_sweep_page(sweep: SweepConfig, journal: Journal, console: Console) -> None:
    """Write the page of a sweep and record it; if that fails, warn and remove an older one."""
    try:
        write_page(sweep.folder)
    except Exception as error:  # A finished sweep does not fail because of its page.
        print_warning(console, f"the page could not be written ({error}): write it with reid-tune report.")
        with suppress(OSError):  # An older one would be shown as the page of these results.
            (sweep.folder / PAGE).unlink(missing_ok=True)
    else:
        journal.emit(ArtifactWritten(path=PAGE, folder=""))


def track_sweep(sweep: SweepConfig, journal: Journal, console: Console) -> AbstractContextManager[Sender]:
    """Send the log to MLflow during the block, and record the driver's end after it."""
    return follow_log(_target(sweep, journal, console), journal.emit)


def _target(sweep: SweepConfig, journal: Journal, console: Console) -> LogTarget:
    name, storage = sweep.file.name, sweep.file.storage
    return LogTarget(
        journal.path,
        with_credentials(journal.state.header.tracking_uri),
        partial(print_warning, console),
        f"reid-tune sync {name}" + (f" --storage {storage}" if storage != "runs" else ""),
        SweepPage,
    )


def print_warning(console: Console, text: str) -> None:
    """Print a warning in yellow."""
    console.print(f"warning: {text}", style="yellow", markup=False, emoji=False, highlight=False, soft_wrap=True)
