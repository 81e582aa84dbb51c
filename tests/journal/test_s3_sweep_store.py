"""A driver whose sweep is at s3://, and the other processes, on each of the servers that speak S3."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.journal import s3_sweep_store as module
from reid_tune.journal.checksum import add_checksum
from reid_tune.journal.event_log import CURSOR, EVENTS
from reid_tune.journal.events import ArtifactWritten, RunSuggested, StageStarted, to_line
from reid_tune.journal.journal import Journal
from reid_tune.journal.lease import LEASE
from reid_tune.journal.requests import pending_requests, remove_request, submit_request
from reid_tune.journal.s3_reader import snapshot_for_reading
from reid_tune.journal.s3_sweep_store import S3SweepStore
from reid_tune.storage.download_cache import display_path, mirror_folder
from reid_tune.storage.s3 import S3Store

from ..helpers.events import write_events


@pytest.fixture
def storage(url: str) -> str:
    return url


@pytest.fixture(autouse=True)
def this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with its own cache."""
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path / "cache"))


def wait(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def opened(storage: str, machine: Path | None = None) -> S3SweepStore:
    """The files of the sweep `small`, as a driver begins with them."""
    files = S3SweepStore(S3Store(storage) / "small", (machine or mirror_folder("drivers", storage)) / "small")
    files.pull()
    return files


def lines(storage: str) -> int:
    return (S3Store(storage).read(f"small/{EVENTS}") or b"").count(b"\n")


def test_what_the_driver_writes_is_in_the_bucket_soon_and_at_a_stage_at_once(storage: str) -> None:
    files = opened(storage)
    with Journal(files) as journal:
        assert S3Store(storage).read(f"small/{LEASE}")
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
        wait(lambda: lines(storage) == 1)
        for name in ("split/train.txt", CURSOR, "trials/0000/run.json"):
            (files.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (files.folder / name).write_text(name)
        for name in ("trials/0000/log.txt", "confirm/1/features.npz", f"trials/0000/attempt-1/{LATEST}", "ray/x"):
            (files.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (files.folder / name).write_text("of a run, or nobody's")
        journal.emit(StageStarted(stage="preflight"))
        assert lines(storage) == 2
        names = set(S3Store(storage).objects()) - {f"small/{LEASE}"}
        assert names == {f"small/{name}" for name in (EVENTS, "split/train.txt", CURSOR, "trials/0000/run.json")}
    assert S3Store(storage).read(f"small/{LEASE}") is None


def test_another_machine_continues_with_all_but_checkpoints(storage: str, tmp_path: Path) -> None:
    with Journal(opened(storage)) as journal:
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
        (journal.folder / "split.txt").write_text("1")
    S3Store(storage).write(f"small/trials/0000/attempt-2/{LATEST}", b"weights")
    S3Store(storage).write("small/confirm/1/features.npz", b"f")
    S3Store(storage).write(f"other/{EVENTS}", b"{}\n")
    second = opened(storage, tmp_path / "other machine")
    names = {str(path.relative_to(second.folder.parent)) for path in second.folder.parent.rglob("*") if path.is_file()}
    assert names == {f"small/{EVENTS}", "small/split.txt", "small/confirm/1/features.npz", f"other/{EVENTS}"}
    newest = second.newest_checkpoint("trials/0000")
    assert newest == second.folder / "trials/0000/attempt-2" / LATEST
    second.fetch(newest)
    assert newest.read_bytes() == b"weights"
    with Journal(second) as journal:
        assert list(journal.state.runs) == ["trials/0000"]


def test_what_the_bucket_no_longer_has_is_gone_here_too(storage: str) -> None:
    with Journal(opened(storage)) as journal:
        (journal.folder / "report.html").write_text("old")
    S3Store(storage).remove("small/report.html")
    assert not (opened(storage).folder / "report.html").exists()


def test_a_killed_drivers_last_events_are_kept_on_its_machine_unless_another_continued(
    storage: str, tmp_path: Path
) -> None:
    with Journal(opened(storage)) as journal:
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
    log = mirror_folder("drivers", storage) / "small" / EVENTS
    write_events(log, [ArtifactWritten(path="x", folder="")])
    assert len(Journal(opened(storage)).earlier_events) == 2
    with Journal(opened(storage, tmp_path / "other machine")) as other_journal:
        other_journal.emit(RunSuggested(run="trials/0001", parameters={}, origin="spec", costs={}))
    assert [event.run for event in Journal(opened(storage)).earlier_events if isinstance(event, RunSuggested)] == [
        "trials/0000",
        "trials/0001",
    ]


def test_a_second_driver_is_refused_and_takes_nothing_away(storage: str, tmp_path: Path) -> None:
    with Journal(opened(storage)) as journal:
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
        with pytest.raises(InputError, match="in use by another running process"):
            Journal(opened(storage))
        assert len(Journal(opened(storage, tmp_path / "other machine")).earlier_events) <= 1
        journal.emit(RunSuggested(run="trials/0001", parameters={}, origin="spec", costs={}))
    assert lines(storage) == 2


def test_a_driver_that_was_followed_does_not_write_over_the_new_one(storage: str, tmp_path: Path) -> None:
    journal = Journal(opened(storage))
    with pytest.raises(InfrastructureError, match="taken over by a driver on node7"), journal:
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
        wait(lambda: lines(storage) == 1)
        S3Store(storage).write(f"small/{LEASE}", add_checksum({"owner": "x", "host": "node7"}))
        wait(lambda: journal._lease and journal._lease._new_host)
        with journal.path.open("a") as file:
            file.write("{}\n")
        journal.emit(RunSuggested(run="trials/0001", parameters={}, origin="spec", costs={}))
    assert lines(storage) == 1 and S3Store(storage).read(f"small/{LEASE}")


def test_files_are_deleted_there_when_the_log_has_arrived_that_says_why(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = S3Store(storage) / "small"
    order: list[str] = []
    upload, remove = S3Store.upload, S3Store.remove_tree
    monkeypatch.setattr(S3Store, "upload", lambda *all: order.append(f"write {all[2]}") or upload(*all))
    monkeypatch.setattr(S3Store, "remove_tree", lambda *all: order.append(f"delete {all[1]}") or remove(*all))
    for name in ("trials/0000/attempt-1/a", "trials/0000/attempt-2/b", "trials/0000/log.txt", "refit/winner/run.json"):
        bucket.write(name, b"")
    with Journal(opened(storage)) as journal:
        journal.files.flush()
        order.clear()
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
        journal.files.discard("trials/0000", attempts=True)
        journal.files.discard("refit/winner")
        journal.files.flush()
        assert order.index(f"write {EVENTS}") < order.index("delete trials/0000/attempt-1")
        assert set(bucket.objects()) == {EVENTS, LEASE, "trials/0000/log.txt"}


def test_attempts_before_the_newest_with_a_checkpoint_are_deleted_there(storage: str) -> None:
    bucket = S3Store(storage) / "small"
    kept = {f"trials/0000/attempt-{number}/{LATEST}" for number in (10, 12)}
    for name in kept | {f"trials/0000/attempt-2/{LATEST}", "trials/0000/attempt-9/x", "trials/0000/attempt-11/x"}:
        bucket.write(name, b"")
    with Journal(opened(storage)) as journal:
        journal.files.discard_superseded("trials/0000", 11)
        journal.files.flush()
        assert set(bucket.objects()) == {EVENTS, LEASE, "trials/0000/attempt-11/x"} | kept


def test_a_server_that_stays_unreachable_ends_the_sweep_and_one_that_comes_back_does_not(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAST_FLUSH_SECONDS", 0.0)
    unreachable = threading.Event()
    upload = S3Store.upload

    def sometimes(bucket: S3Store, path: Path, name: str) -> None:
        if unreachable.is_set():
            raise InfrastructureError("s3://x: no answer.")
        upload(bucket, path, name)

    monkeypatch.setattr(S3Store, "upload", sometimes)
    with (
        pytest.raises(InfrastructureError, match="no answer. Finished work is not lost"),
        Journal(opened(storage)) as journal,
    ):
        unreachable.set()
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
        wait(lambda: journal.files._error)  # type: ignore[attr-defined]
        journal.emit(RunSuggested(run="trials/0001", parameters={}, origin="spec", costs={}))
        unreachable.clear()
        wait(lambda: lines(storage) == 2)
        unreachable.set()
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
        journal.emit(RunSuggested(run="trials/0002", parameters={}, origin="spec", costs={}))
        wait(lambda: journal.files._error)  # type: ignore[attr-defined]
        journal.emit(RunSuggested(run="trials/0003", parameters={}, origin="spec", costs={}))


def test_requests_reach_the_driver_once(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SCAN_SECONDS", 0.0)
    with Journal(opened(storage)) as journal:
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
        journal.files.flush()
        snapshot = Path(snapshot_for_reading(storage, "small"))
        assert snapshot != journal.folder.parent
        submit_request(S3Store(storage) / "small", "stop", "trials/0000")
        wait(lambda: pending_requests(journal.folder))
        assert snapshot_for_reading(storage, "small") == str(snapshot) and pending_requests(snapshot / "small") == [], (
            "it is the driver's now"
        )
        (request,) = pending_requests(journal.folder)
        assert request.run == "trials/0000"
        remove_request(request)
        wait(lambda: not any("requests" in name for name in S3Store(storage).objects()))
        assert pending_requests(journal.folder) == [] and pending_requests(snapshot / "small") == []


def test_readers_see_logs_and_not_models(storage: str) -> None:
    bucket = S3Store(storage)
    for name in (EVENTS, "trials/0000/log.txt", f"trials/0000/attempt-1/{LATEST}", "export/winner.onnx"):
        bucket.write(f"small/{name}", b"{}\n")
    bucket.write(f"other/{EVENTS}", b"{}\n")
    bucket.write("other/run.json", b"{}\n")
    every = Path(snapshot_for_reading(storage))
    assert {path.name for path in every.rglob("*") if path.is_file()} == {EVENTS} and len(list(every.iterdir())) == 2
    one = Path(snapshot_for_reading(storage, "small"))
    assert {path.name for path in (one / "small").rglob("*") if path.is_file()} == {EVENTS, "log.txt"}
    assert display_path(one / "small") == f"{storage}/small" and display_path(Path("/runs/small")) == "/runs/small"
    with pytest.raises(InputError, match=f"there is no sweep 'none' in {storage}; sweeps there: other, small"):
        snapshot_for_reading(storage, "none")
    assert snapshot_for_reading("runs") == "runs"


def test_a_driver_that_began_from_an_old_copy_is_sent_back(storage: str, tmp_path: Path) -> None:
    old = opened(storage)
    with Journal(opened(storage, tmp_path / "other machine")) as other_journal:
        other_journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
    journal = Journal(old)
    with pytest.raises(InputError, match=f"another driver has changed {storage}/small in the meantime"), journal:
        raise AssertionError("it drives")
    assert lines(storage) == 1 and S3Store(storage).read(f"small/{LEASE}") is None


def test_drivers_of_two_sweeps_on_one_machine_leave_each_other_alone(storage: str) -> None:
    with Journal(opened(storage)) as journal:
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
        journal.files.flush()
        journal.emit(RunSuggested(run="trials/0001", parameters={}, origin="spec", costs={}))
        other = S3SweepStore(S3Store(storage) / "other", mirror_folder("drivers", storage) / "other")
        other.pull()
        journal.emit(RunSuggested(run="trials/0002", parameters={}, origin="spec", costs={}))
        with pytest.raises(InputError, match="in use"):
            Journal(opened(storage))
    assert lines(storage) == 3


def test_a_torn_line_in_the_bucket_is_left_out(storage: str, tmp_path: Path) -> None:
    line = to_line(ArtifactWritten(path="x", folder="")) + b"\n"
    S3Store(storage).write(f"small/{EVENTS}", line + line[:12])
    with Journal(opened(storage)) as journal:
        assert len(journal.earlier_events) == 1
    with Journal(opened(storage, tmp_path / "other machine")) as journal:
        assert len(journal.earlier_events) == 1


def test_a_run_that_starts_again_uses_no_files_of_its_first_start(storage: str) -> None:
    bucket = S3Store(storage) / "small"
    for number in (1, 2):
        bucket.write(f"refit/winner/attempt-{number}/{LATEST}", b"old")
    with Journal(opened(storage)) as journal:
        assert journal.files.newest_checkpoint("refit/winner", 1) is None
        journal.files.clear(journal.folder / "refit/winner/attempt-1")
        assert journal.files.newest_checkpoint("refit/winner", 2) is None
        assert str(journal.files.newest_checkpoint("refit/winner")).endswith(f"attempt-2/{LATEST}")
