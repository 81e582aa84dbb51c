import math
import shutil
from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.execution.failures import Failure
from reid_tune.execution.fixed_runs import FixedRuns, features_file
from reid_tune.execution.run_source import Attempt, ResourceRequest
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.journal import Journal
from reid_tune.search_space.load import SweepConfig

from ..helpers.simulated_driver import EPOCHS, drive, epoch_metrics, make_sweep, outcome

pytestmark = pytest.mark.usefixtures("no_fsync")

RUNS = {"refit/winner": {"train.optim.base_lr": 0.002}, "refit/trial0": {}}
DEAD = Failure("lost_worker", "the worker process died")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepConfig:
    return make_sweep(tmp_path)


def again(source: FixedRuns, run: str) -> Attempt:
    attempt = source.next_attempt()
    assert attempt is not None and attempt.run == run
    return attempt


def test_a_driver_killed_behind_any_event_changes_nothing(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = Journal(tmp_path / "whole")
    drive(FixedRuns(sweep, journal, RUNS))
    journal.__exit__()
    lines = (tmp_path / "whole" / EVENTS).read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 * (3 + EPOCHS + 1)
    for count in range(len(lines) + 1):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / EVENTS).write_bytes(b"".join(lines[:count]))
        resumed = Journal(folder)
        source = FixedRuns(sweep, resumed, RUNS)
        drive(source)
        assert source.is_done() and outcome(resumed) == outcome(journal), f"killed after event {count}"


def test_what_diverged_is_not_started_again_and_what_died_is(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = Journal(tmp_path / "x")
    source = FixedRuns(sweep, journal, RUNS)
    source.next_attempt(), source.next_attempt()
    assert source.report("refit/winner", epoch_metrics(sweep.experiment, 1))
    assert source.report("refit/winner", epoch_metrics(sweep.experiment, 1)), "an epoch may come twice"
    assert not source.report("refit/winner", {"epoch": 2, "loss": math.nan})
    assert not source.is_done() and not source.is_running("refit/winner")
    for _ in range(2):
        source.report_lost("refit/trial0", DEAD)
        again(source, "refit/trial0")
    source.report_lost("refit/trial0", DEAD)
    assert source.is_done() and source.next_attempt() is None
    ends = [(run.failure, run.reason, run.attempts) for run in journal.state.runs.values()]
    assert ends == [("non_finite", "loss is nan in epoch 2", 1), ("lost_worker", "the worker process died", 3)]


def test_retries_count_over_drivers(tmp_path: Path, sweep: SweepConfig) -> None:
    for _ in range(2):
        with Journal(tmp_path / "x") as journal:
            source = FixedRuns(sweep, journal, {"refit/winner": {}})
            again(source, "refit/winner")
            source.report_lost("refit/winner", DEAD)
    with Journal(tmp_path / "x") as journal:
        source = FixedRuns(sweep, journal, {"refit/winner": {}})
        again(source, "refit/winner")
        source.report_lost("refit/winner", DEAD)
        assert journal.state.runs["refit/winner"].state == "failed"


def test_out_of_memory_on_a_shared_gpu_it_gets_one_alone(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = Journal(tmp_path / "x")
    source = FixedRuns(sweep, journal, {"refit/winner": {}}, ResourceRequest(cpus=2, gpus=0.5))
    assert again(source, "refit/winner").resources == ResourceRequest(2, 0.5)
    full = {"failed": "out of memory: 2 GiB", "failure": "out_of_memory"}
    assert not source.report("refit/winner", full)
    assert again(source, "refit/winner").resources == ResourceRequest(2, 1)
    assert not source.report("refit/winner", full)
    assert journal.state.runs["refit/winner"].failure == "out_of_memory"


def test_out_of_memory_alone_there_is_nothing_to_try(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = Journal(tmp_path / "x")
    source = FixedRuns(sweep, journal, {"refit/winner": {}}, ResourceRequest(cpus=2, gpus=1))
    again(source, "refit/winner")
    assert not source.report("refit/winner", {"failed": "out of memory: 2 GiB", "failure": "out_of_memory"})
    assert source.is_done() and journal.state.runs["refit/winner"].state == "failed"


def test_a_full_disk_ends_the_sweep_and_not_the_run(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = Journal(tmp_path / "x")
    source = FixedRuns(sweep, journal, {"refit/winner": {}})
    again(source, "refit/winner")
    with pytest.raises(InfrastructureError, match=r"refit/winner: No space left on device\. .* --resume auto"):
        source.report("refit/winner", {"failed": "No space left on device.", "failure": "infrastructure"})
    assert source.is_running("refit/winner")


def test_features_are_kept_and_checkpoints_are_not(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = Journal(tmp_path / "x")
    source = FixedRuns(sweep, journal, {"confirm/0001-1": {}}, keep_features=True)
    attempt = again(source, "confirm/0001-1")
    assert attempt.features == features_file(tmp_path / "x", "confirm/0001-1")
    attempt.folder.mkdir()
    attempt.features.touch()
    assert not source.report(attempt.run, epoch_metrics(sweep.experiment, EPOCHS))
    assert attempt.features.exists() and not attempt.folder.exists()
