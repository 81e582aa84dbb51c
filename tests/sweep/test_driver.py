import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from rich.console import Console

from reid_tune.checkpoints.encryption import encrypt
from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, KEY_VARIABLE
from reid_tune.errors import InputError
from reid_tune.journal.events import StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.sweep_lookup import resume_command
from reid_tune.journal.sweep_store import SweepStore
from reid_tune.search.asha import Rungs
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.driver import SweepDriver
from reid_tune.sweep.run import plan_sweep, run_sweep

from ..helpers.events import sweep_header
from ..helpers.finished_sweep import CHECKED
from ..helpers.simulated_driver import SPEC, make_sweep

SECRET = "open sesame 4711"


@pytest.fixture(autouse=True)
def fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_tune.sweep.stages.preflight.SAMPLE_COUNT", 20)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY_VARIABLE, KEY_FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_a_resumed_sweep_keeps_the_rungs_of_its_log(tmp_path: Path) -> None:
    sweep, now = make_sweep(tmp_path), replace(CHECKED, rungs=Rungs((9,), 3))
    driver = SweepDriver(sweep, SweepStore(sweep.folder), now, now.as_dict(), None, Console())
    with Journal(sweep.folder) as driver.journal:
        driver.journal.emit(StageDone(stage="preflight", result=replace(now, rungs=Rungs((4, 8), 2)).as_dict()))
    assert driver.rungs == Rungs((4, 8), 2)


def test_the_resume_command_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/reid-tune", "sweep", "a b.yaml", "train.num_epochs=3"])
    assert resume_command() == "reid-tune sweep 'a b.yaml' train.num_epochs=3 --resume auto"
    monkeypatch.setattr(sys, "argv", ["/bin/reid-tune", "sweep", "a.yaml", "--resume=auto"])
    assert resume_command() == "reid-tune sweep a.yaml --resume auto"
    monkeypatch.setattr(sys, "argv", ["/lib/ipykernel_launcher.py", "-f", "kernel.json"])
    assert resume_command() == "run_sweep(..., resume='auto')"


def begun(folder: Path, key: str | None, lock: str | None) -> SweepConfig:
    """A sweep whose log has begun with a lock, now with a key in its spec."""
    sweep = make_sweep(folder, SPEC | ({"encryption_key": key} if key else {}))
    header = {"name": "simulated", "uid": "uid", "tracking_uri": "", "lock": lock}
    spec = sweep.experiment.parameters()
    with Journal(sweep.folder) as journal:
        journal.emit(sweep_header(**header, sweep=sweep.file.model_dump(mode="json"), spec=spec))
    return sweep


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            None,
            f"the sweep simulated is encrypted: give its key as encryption_key, {KEY_VARIABLE} or {KEY_FILE_VARIABLE}.",
        ),
        ("open sesame", "the encryption key does not open the sweep simulated: give the key that"),
    ],
)
def test_an_encrypted_sweep_continues_with_its_key_only(tmp_path: Path, given: str | None, message: str) -> None:
    sweep = begun(tmp_path, given, encrypt(b"uid", SECRET).hex())
    before = sorted(sweep.folder.iterdir())
    with pytest.raises(InputError) as caught:
        run_sweep(sweep, resume="auto", until="search")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert sorted(sweep.folder.iterdir()) == before


def test_the_right_key_opens_and_a_plain_sweep_takes_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):  # The next check: its data is missing.
        run_sweep(begun(tmp_path / "a", SECRET, encrypt(b"uid", SECRET).hex()), resume="auto", until="search")
    with pytest.raises(InputError, match="nowhere"):
        run_sweep(begun(tmp_path / "b", None, None), resume="auto", until="search")
    with pytest.raises(InputError, match="the sweep simulated began without an encryption key: resume it without one"):
        run_sweep(begun(tmp_path / "c", SECRET, None), resume="auto", until="search")


def test_a_missing_file_of_the_key_stops_a_sweep_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "none.txt"))
    sweep = make_sweep(tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*none\.txt"):
        run_sweep(sweep, resume="never", until="search")
    with pytest.raises(InputError, match=r"cannot read .*none\.txt"):
        plan_sweep(sweep, "search")
    assert not sweep.folder.exists()


def test_a_second_driver_is_refused_before_data_is_read_and_ray_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = begun(tmp_path, None, None)
    monkeypatch.setattr("reid_tune.sweep.run.run_preflight", lambda *_: pytest.fail("data is read"))
    monkeypatch.setattr("reid_tune.sweep.run.ray_session", lambda *_: pytest.fail("Ray is started"))
    with (
        Journal(sweep.folder),
        pytest.raises(InputError, match="simulated is in use by another running process: wait for it or stop it"),
    ):
        run_sweep(sweep, resume="auto", until="register")


def test_a_driver_on_another_machine_is_noticed_before_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = begun(tmp_path, None, None)
    monkeypatch.setattr("reid_tune.sweep.run.run_preflight", lambda *_: pytest.fail("data is read"))
    alive = InputError(f"{sweep.folder} is driven by process 1 on elsewhere: wait for it or stop it.")
    monkeypatch.setattr("reid_tune.sweep.run.Lease", MagicMock(side_effect=alive))
    with pytest.raises(InputError, match="is driven by process 1 on elsewhere"):
        run_sweep(sweep, resume="auto", until="register")
