"""Whole sweeps on a real Ray with a real MLflow store: crashes, lost workers, Ctrl-C, the registry."""

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from reid_tune.checkpoints.encryption import is_encrypted
from reid_tune.config.encryption_key import KEY_VARIABLE
from reid_tune.demo import draw_demo_data
from reid_tune.journal.event_log import read_events, read_header
from reid_tune.journal.events import AttemptStarted, EpochReported, RunEnded, RunRetried, StageStarted

from ..helpers.cli_sweep import Bench
from ..helpers.leaks import command_lines, files, leaks, spellings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

SECRET = "a+passphrase/that-is-nowhere-4711"
# Variables that no stage needs here, and that none may write down.
OTHER_SECRETS = {
    name: f"{name.lower()}-is-nowhere-4711"
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MY_API_KEY")
}


RERANKED = {
    "train.optim.base_lr": {"loguniform": [2.0e-4, 5.0e-3]},
    "train.optim.triplet_loss_margin": {"uniform": [0.1, 0.6]},
    "re_ranking.k1": {"int": [3, 8]},
}


def test_a_killed_sweep_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    changes = {"confirm": {"candidates": 1, "repeats": 2}, "space": RERANKED}
    calm, rough = Bench(tmp_path / "calm", **changes), Bench(tmp_path / "rough", **changes)
    # Each counts its own evaluations of the test set.
    rough.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    calm.run("sweep", "sweep.yaml")
    in_stage = lambda stage: bool(rough.reports(stage))  # noqa: E731
    kills = [lambda n=n: rough.count(EpochReported) >= n for n in (2, 5, 9)]  # type: ignore[misc]
    kills += [lambda stage=stage: in_stage(stage) for stage in ("confirm/", "refit/")]  # type: ignore[misc]
    for when in kills:
        status, _ = rough.interrupt(when, signal.SIGKILL, "sweep", "sweep.yaml", "--resume", "auto")
        assert status == -signal.SIGKILL
    rough.run("sweep", "sweep.yaml", "--resume", "auto")

    assert _without_times(rough.report()) == _without_times(calm.report())
    epochs = [(event.run, event.epoch) for event in rough.reports()]
    assert len(epochs) == len(set(epochs)), "an epoch was recorded twice"
    _check_mlflow(rough)

    before = (rough.folder / "runs" / "small" / "events.jsonl").read_bytes()
    rough.run("sweep", "sweep.yaml", "--resume", "auto")
    assert (rough.folder / "runs" / "small" / "events.jsonl").read_bytes() == before
    _check_larger_budget(rough)


def _without_times(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in ("spent", "latency")}


def _check_larger_budget(bench: Bench) -> None:
    """Six trials instead of five: the search continues, the later stages are done again, MLflow has one parent run."""
    from mlflow import MlflowClient

    before = bench.report()
    bench.run("sweep", "sweep.yaml", "--resume", "auto", "sweep.budget.trials=6")
    after = bench.report()
    assert after["trials"][:5] == before["trials"] and len(after["trials"]) == 6
    assert after["test_evaluations"] == {"test folders": 5}, "two of the sweep, and three by `evaluate` before"
    client = MlflowClient(f"sqlite:///{bench.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert len([run for run in runs if "mlflow.parentRunId" not in run.data.tags]) == 1
    names = [run.data.tags["mlflow.runName"] for run in runs]
    assert len(names) == len(set(names))


def test_the_test_folders_decide_nothing_and_are_not_needed_before_the_test(tmp_path: Path) -> None:
    without, other = Bench(tmp_path / "without"), Bench(tmp_path / "other")
    for folder in ("query", "bounding_box_test"):
        (without.folder / "data" / folder).rename(without.folder / f"away-{folder}")
    draw_demo_data(tmp_path / "strangers", identities=16, images=6, seed=9)
    for folder in ("query", "bounding_box_test"):
        shutil.rmtree(other.folder / "data" / folder)
        (tmp_path / "strangers" / folder).rename(other.folder / "data" / folder)
    without.run("sweep", "sweep.yaml", "--until", "refit")
    other.run("sweep", "sweep.yaml", "--until", "test")
    one, two = without.report(), other.report()
    assert one["trials"] == two["trials"] and one["confirm"] == two["confirm"] and one["winner"] == two["winner"]
    assert one["test"] is None and two["test"]["winner"]["plain"]["mAP"] > 0


def test_trials_of_several_workers(tmp_path: Path) -> None:
    resources = {"workers": 2, "refit_workers": 2, "max_concurrent": 1}
    bench = Bench(tmp_path, budget={"trials": 4}, resources=resources)
    bench.run("sweep", "sweep.yaml", "--until", "refit")
    report = bench.report()
    assert [trial["state"] for trial in report["trials"]].count("finished") >= 1
    assert {event.cpus for event in bench.events if isinstance(event, AttemptStarted)} == {2}
    assert report["stages"][-1] == "refit" and not [trial for trial in report["trials"] if trial["state"] == "failed"]
    assert not bench.count(RunRetried)


def test_a_full_disk_ends_the_sweep_and_loses_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, budget={"trials": 3})
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    try:
        fill = disk / "fill"

        def fill_up() -> bool:
            log = disk / "small" / "events.jsonl"
            if not log.is_file() or '"kind":"report"' not in log.read_text():
                return False
            with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            return True

        arguments = ("sweep", "sweep.yaml", f"sweep.storage={disk}", "--until", "search", "--resume", "auto")
        status, errors = bench.interrupt(fill_up, signal.SIGCONT, *arguments)
        assert fill.exists() and status == 3, errors
        assert ("No space left" in errors or "is the disk full?" in errors) and "Traceback" not in errors
        known = [event for event in read_events(disk / "small" / "events.jsonl") if isinstance(event, EpochReported)]
        fill.unlink()
        bench.run(*arguments)
        again = [event for event in read_events(disk / "small" / "events.jsonl") if isinstance(event, EpochReported)]
        assert again[: len(known)] == known and len(again) > len(known)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _check_mlflow(bench: Bench) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{bench.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    report = bench.report()
    assert len(parents) == 1 and len(runs) == 1 + 5 + 2 * len(report["confirm"]["trials"]) + len(report["test"])
    trial = next(run for run in runs if run.data.tags["mlflow.runName"] == "trials/0000")
    history = client.get_metric_history(trial.info.run_id, "val/mAP")
    assert [point.step for point in history] == [1, 2, 3, 4]
    reported = bench.report()["trials"][0]["mAP"]
    assert history[-1].value == pytest.approx(reported)
    version = client.get_model_version_by_alias("small", "champion")
    assert version.version == "1" or version.version == 1

    evaluated = {}
    for reference in ("models:/small@champion", "runs/small/export/winner.onnx", "sweep:small"):
        arguments = ("evaluate", "-e", "spec.yaml", f"evaluate.checkpoint={reference}", "--format", "json")
        evaluated[reference] = json.loads(bench.run(*arguments).stdout)["plain"]
    assert len({json.dumps(metrics) for metrics in evaluated.values()}) == 1
    assert evaluated["sweep:small"] == bench.report()["test"]["winner"]["plain"]
    bench.run("export", "models:/small@champion", "export.onnx_file=again.onnx")
    assert (bench.folder / "again.onnx").stat().st_size > 1e6


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_how_to_continue_and_leaves_no_process(tmp_path: Path, how: signal.Signals) -> None:
    bench = Bench(tmp_path)
    bench.environment["MLFLOW_TRACKING_URI"] = "http://me:hush-hush-4711@127.0.0.1:9"  # where nothing answers
    arguments = ("sweep", "sweep.yaml", f"encryption_key={SECRET}", "--until", "search")
    status, errors = bench.interrupt(lambda: bench.count(EpochReported) >= 2, how, *arguments)
    assert status == 130
    assert read_header(bench.folder / "runs/small/events.jsonl").tracking_uri == "http://127.0.0.1:9"
    assert not leaks(SECRET, tmp_path) and not leaks("hush-hush-4711", tmp_path)
    assert "reid-tune sweep sweep.yaml --until search --resume auto" in errors
    assert "Traceback" not in errors
    left = [process for process in psutil.process_iter() if _works_in(process, tmp_path)]
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except psutil.Error:
        return False


def test_a_lost_worker_is_started_again_from_its_checkpoint(tmp_path: Path) -> None:
    bench = Bench(tmp_path, budget={"trials": 1})
    killed: list[psutil.Process] = []

    def kill_worker() -> bool:
        if bench.count(EpochReported) >= 2 and not killed:
            family = psutil.Process(bench.pid).children(recursive=True)
            killed.extend(process for process in family if "ray::ImplicitFunc" in " ".join(_cmdline(process)))
            for worker in killed:
                worker.kill()
        return bench.count(RunEnded) >= 1

    bench.interrupt(kill_worker, signal.SIGCONT, "sweep", "sweep.yaml", "--until", "search")
    assert killed
    attempts = [event.attempt for event in bench.events if isinstance(event, AttemptStarted)]
    assert attempts == [1, 2]
    trial = bench.report()["trials"][0]
    assert trial["state"] == "finished" and trial["epoch"] == 4


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_key_reaches_all_stages_and_no_secret_is_written_anywhere(tmp_path: Path) -> None:
    bench = Bench(tmp_path, budget={"trials": 1}, resources={"refit_workers": 2})
    bench.environment |= OTHER_SECRETS | {KEY_VARIABLE: SECRET}
    secrets, lines = [SECRET, *OTHER_SECRETS.values()], list[str]()

    def seen() -> bool:
        """Whether the last stage has begun; as long as Ray's files are there, the key is looked for in them."""
        if bench.reports("refit/winner"):
            lines.extend(command_lines(bench.pid))
            assert not [secret for secret in secrets if leaks(secret, Path(temporary))]
        return any(isinstance(event, StageStarted) and event.stage == "register" for event in bench.events)

    # A short name, for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        bench.environment["TMPDIR"] = temporary
        status, errors = bench.interrupt(seen, signal.SIGCONT, "sweep", "sweep.yaml")
        assert status == 0, errors
        assert any("ray::" in line for line in lines)
        for secret in secrets:  # what the command has printed is in files of its folder
            assert not leaks(secret, Path(temporary)) and not leaks(secret, bench.folder)
            assert not [text for text in spellings(secret) if text in "\n".join(lines).encode()]
        _check_encrypted(bench)


def _check_encrypted(bench: Bench) -> None:
    bench.report()
    assert not leaks(SECRET, bench.folder)
    checkpoints = [path for path, _ in files(bench.folder) if path.suffix == ".pth"]
    assert bench.folder / "runs/small/export/winner.pth" in checkpoints
    assert any("mlartifacts" in path.parts for path in checkpoints), "MLflow has a copy"
    assert all(is_encrypted(path.read_bytes()) for path in checkpoints)
    command = ("export", "models:/small@champion", "export.onnx_file=again.onnx")
    bench.run(*command)
    assert (bench.folder / "again.onnx").is_file()
    del bench.environment[KEY_VARIABLE]
    refused = bench.run(*command, "export.overwrite=true", status=2)
    assert "checkpoint.pth is encrypted: give its key as" in refused.stderr
    evaluated = bench.run("evaluate", "-e", "spec.yaml", "evaluate.checkpoint=models:/small@champion")
    assert "mAP" in evaluated.stdout, "an ONNX file needs no key"
