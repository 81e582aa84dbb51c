"""The right to drive a sweep; another machine is simulated by another boot id."""

import threading
import time
from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.journal import lease as module
from reid_tune.journal.checksum import add_checksum, is_intact, read_checked
from reid_tune.journal.lease import Lease
from reid_tune.storage.object_store import LocalStore


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Later leases of this process are those of another machine."""
    other = tmp_path / "boot_id"
    other.write_text("another")
    monkeypatch.setattr(module, "_BOOT", other)


def left_behind(path: Path) -> None:
    """The lease of a driver that died on some other machine."""
    path.write_bytes(add_checksum({"owner": "x", "machine": "gone", "host": "node7", "pid": 1, "count": 3}))


def test_a_lease_is_renewed_and_taken_away_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "driver.json"
    with Lease(LocalStore(tmp_path), silence=0.3) as lease:
        first = read_checked(path.read_bytes())
        while (now := read_checked(path.read_bytes()))["count"] < first["count"] + 2:
            lease.require_held()
        assert {**now, "count": 0} == {**first, "count": 0}
    assert not path.exists()


def test_the_lease_of_this_machine_is_taken_at_once(tmp_path: Path) -> None:
    waited = list[str]()
    # The lock of the log has shown that the first driver has ended.
    with Lease(LocalStore(tmp_path), silence=60), Lease(LocalStore(tmp_path), silence=60, wait=waited.append):
        assert not waited


def test_a_silent_driver_elsewhere_is_followed_after_a_while(tmp_path: Path) -> None:
    path, waited = tmp_path / "driver.json", list[str]()
    left_behind(path)
    with Lease(LocalStore(tmp_path), silence=0.3, wait=waited.append) as lease:
        lease.require_held()
        assert read_checked(path.read_bytes())["host"] != "node7"
    assert waited == ["the last driver ran on node7; waiting 0.3 s for a heartbeat ..."]


@pytest.mark.usefixtures("elsewhere")
def test_a_driver_elsewhere_that_gives_signs_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(LocalStore(tmp_path), silence=0.3):
        monkeypatch.setattr(module, "_BOOT", tmp_path / "none")
        with pytest.raises(InputError, match=rf"{tmp_path} is driven by process \d+ on"):
            Lease(LocalStore(tmp_path), silence=3.0)


def test_a_driver_that_others_took_for_dead_stops(tmp_path: Path) -> None:
    path = tmp_path / "driver.json"
    with Lease(LocalStore(tmp_path), silence=0.3) as lease:
        left_behind(path)
        with pytest.raises(InfrastructureError, match="taken over by a driver on node7"):
            while True:
                lease.require_held()
    assert read_checked(path.read_bytes())["host"] == "node7", "whose lease stays"


def test_a_driver_that_slept_looks_before_it_writes(tmp_path: Path) -> None:
    path = tmp_path / "driver.json"
    with Lease(LocalStore(tmp_path), silence=60) as lease:
        left_behind(path)
        lease.require_held()
        lease._written -= 31
        with pytest.raises(InfrastructureError, match="taken over"):
            lease.require_held()


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 90, b'{"owner":"x","machine":"gone","host":"node7","pid":1}'])
def test_a_damaged_lease_may_be_that_of_a_driver(tmp_path: Path, content: bytes) -> None:
    path, waited = tmp_path / "driver.json", list[str]()
    path.write_bytes(content)
    with Lease(LocalStore(tmp_path), silence=0.3, wait=waited.append):
        assert waited == ["the last driver ran on an unknown machine; waiting 0.3 s for a heartbeat ..."]
        assert read_checked(path.read_bytes())["count"] >= 1


def test_a_lease_that_is_damaged_while_it_is_held_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "driver.json"
    with Lease(LocalStore(tmp_path), silence=0.3) as lease:
        path.write_bytes(path.read_bytes().replace(b'"owner":"', b'"owner":"0'))
        end = time.monotonic() + 5
        while not is_intact(path.read_bytes().removesuffix(b"\n")) and time.monotonic() < end:
            lease.require_held()
        assert is_intact(path.read_bytes().removesuffix(b"\n"))


class SlowStore(LocalStore):
    """A store whose answers take as long as another driver waits; before each answer arrives, that driver writes."""

    def read(self, name: str) -> bytes | None:
        content = super().read(name)
        if content and threading.current_thread() is not threading.main_thread():
            left_behind(self.folder / name)
            time.sleep(0.2)
        return content


def test_an_old_answer_does_not_allow_a_heartbeat(tmp_path: Path) -> None:
    """As in a process that was suspended between its look at the lease and its heartbeat."""
    with Lease(SlowStore(tmp_path), silence=0.3) as lease:
        time.sleep(0.5)
        with pytest.raises(InfrastructureError, match="taken over by a driver on node7"):
            lease.require_held()
    assert read_checked((tmp_path / "driver.json").read_bytes())["host"] == "node7"
