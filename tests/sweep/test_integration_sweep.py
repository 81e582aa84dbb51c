"""Whole sweeps on a real Ray with a real MLflow store: crashes, lost workers, Ctrl-C, the registry."""

import json
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from reid_tune.checkpoints.encryption import is_encrypted
from reid_tune.spec.secret import KEY

from .leaks import command_lines, files, leaks, spellings
from .workbench import Bench

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

SECRET = "a+passphrase/that-stands-nowhere-4711"


def test_a_killed_sweep_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    calm, rough = Bench(tmp_path / "calm"), Bench(tmp_path / "rough")
    calm.run("sweep", "sweep.yaml", "sweep.resources.refit_workers=2")
    kills = [lambda n=n: rough.count("report") >= n for n in (2, 5, 9)]  # type: ignore[misc]
    for when in kills:
        status, _ = rough.interrupt(when, signal.SIGKILL, "sweep", "sweep.yaml", "--resume", "auto")
        assert status == -signal.SIGKILL
    rough.run("sweep", "sweep.yaml", "sweep.resources.refit_workers=2", "--resume", "auto")

    expected, found = calm.report(), rough.report()
    tests = expected.pop("test"), found.pop("test")
    assert found == expected
    assert "winner" in tests[0] and tests[0].keys() == tests[1].keys()
    for finalist in tests[0]:
        # Two workers add gradients in an order that no seed decides.
        assert abs(tests[0][finalist]["plain"]["mAP"] - tests[1][finalist]["plain"]["mAP"]) < 0.05
        assert abs(tests[1][finalist]["plain"]["mAP"] - tests[1][finalist]["checkpoint"]["mAP"]) < 1e-3
    epochs = [(event["run"], event["epoch"]) for event in rough.events if event["kind"] == "report"]
    assert len(epochs) == len(set(epochs)), "an epoch was recorded twice"
    _check_mlflow(rough)

    before = (rough.folder / "runs" / "small" / "events.jsonl").read_bytes()
    rough.run("sweep", "sweep.yaml", "sweep.resources.refit_workers=2", "--resume", "auto")
    assert (rough.folder / "runs" / "small" / "events.jsonl").read_bytes() == before


def _check_mlflow(bench: Bench) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{bench.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    refits = len(bench.report()["test"])  # one where trial 0 has won
    assert len(parents) == 1 and len(runs) == 1 + 5 + refits
    trial = next(run for run in runs if run.data.tags["mlflow.runName"] == "trials/0000")
    history = client.get_metric_history(trial.info.run_id, "mAP")
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


def test_ctrl_c_says_how_to_go_on_and_leaves_no_process(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.environment["MLFLOW_TRACKING_URI"] = "http://me:hush-hush-4711@127.0.0.1:9"  # where nothing answers
    arguments = ("sweep", "sweep.yaml", f"encryption_key={SECRET}", "--until", "search")
    status, errors = bench.interrupt(lambda: bench.count("report") >= 2, signal.SIGINT, *arguments)
    assert status == 130
    assert bench.events[0]["tracking_uri"] == "http://127.0.0.1:9"
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
        if bench.count("report") >= 2 and not killed:
            family = psutil.Process(bench.pid).children(recursive=True)
            killed.extend(process for process in family if "ray::ImplicitFunc" in " ".join(_cmdline(process)))
            for worker in killed:
                worker.kill()
        return bench.count("ended") >= 1

    bench.interrupt(kill_worker, signal.SIGCONT, "sweep", "sweep.yaml", "--until", "search")
    assert killed
    attempts = [event["attempt"] for event in bench.events if event["kind"] == "attempt"]
    assert attempts == [1, 2]
    trial = bench.report()["trials"][0]
    assert trial["state"] == "finished" and trial["epoch"] == 4


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_key_reaches_all_stages_and_stands_nowhere(tmp_path: Path) -> None:
    bench = Bench(tmp_path, budget={"trials": 1}, resources={"refit_workers": 2})
    bench.environment[KEY] = SECRET
    lines: list[str] = []

    def seen() -> bool:
        """Whether the last stage has begun; as long as Ray's files are there, the key is looked for in them."""
        if any(event["kind"] == "report" and event["run"] == "refit/winner" for event in bench.events):
            lines.extend(command_lines(bench.pid))
            assert not leaks(SECRET, Path(temporary))
        return any(event["kind"] == "stage" and event["stage"] == "register" for event in bench.events)

    # A short name, for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        bench.environment["TMPDIR"] = temporary
        status, errors = bench.interrupt(seen, signal.SIGCONT, "sweep", "sweep.yaml")
        assert status == 0, errors
        assert not leaks(SECRET, Path(temporary))
        assert any("ray::" in line for line in lines)
        assert not [text for text in spellings(SECRET) if text in "\n".join(lines).encode()]
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
    del bench.environment[KEY]
    refused = bench.run(*command, "export.overwrite=true", status=2)
    assert "checkpoint.pth is encrypted: give its key as" in refused.stderr
    evaluated = bench.run("evaluate", "-e", "spec.yaml", "evaluate.checkpoint=models:/small@champion")
    assert "mAP" in evaluated.stdout, "an ONNX file needs no key"
