"""Tiny sweeps on a real Ray that are disturbed, continued, and compared with one that nobody disturbed."""

import json
import os
import re
import secrets
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import Event
from reid_tune.journal.state import replay
from reid_tune.report.summary import SearchAnalysis, build_report

from ..helpers.cli_sweep import Bench
from .injection.sitecustomize import file_name

PATIENCE = 600.0  # seconds after which a condition counts as one that never holds; the machine may be very busy
COMMAND = ("sweep", "sweep.yaml", "--resume", "auto")
MARK = "CHAOS_MARK"  # environment variable of all processes of a sweep
INJECTION = Path(__file__).with_name("injection")

SPEC: dict[str, Any] = {
    "model": {"backbone": "test_resnet", "input_width": 16, "input_height": 32},
    "train": {"num_epochs": 3, "optim": {"lr_steps": [2], "warmup_iters": 1}},
}
BUDGET = {"trials": 2}
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{12}(\.\w+)?")  # files that `atomic_path` has not renamed yet
_TIMES = ("spent", "latency")  # of a report: they differ between equal sweeps
_MEASURED = re.compile(r"system/|.*(per_second|seconds|megabytes)")  # metrics in MLflow that differ, too


class ChaosSweep(Bench):
    """A sweep whose processes can be found, disturbed and continued.

    Args:
        folder: Folder of the sweep's files.
        temporary: Its folder for temporary files, with a short name for Ray's sockets.
        changes: Keys of the search-space file.
    """

    def __init__(self, folder: Path, temporary: Path, **changes: Any) -> None:
        super().__init__(folder, **{"budget": BUDGET, **changes})
        self.write_spec(**SPEC)
        self.temporary, self.mark = temporary, secrets.token_hex(8)
        self.commands = 0  # that were started
        self.struck = folder / "struck"
        self.struck.mkdir()
        self.environment |= {
            MARK: self.mark,
            "TMPDIR": str(temporary),
            "REID_TUNE_CACHE_DIR": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
            "CHAOS_STRUCK": str(self.struck),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(INJECTION), os.environ.get("PYTHONPATH")))),
        }

    @property
    def log(self) -> Path:
        """The event log."""
        return self.folder / "runs" / "small" / EVENTS

    @property
    def stderr(self) -> str:
        """What the command that was started last has written to stderr."""
        return self.errors(self.commands)

    def errors(self, number: int) -> str:
        """Return what the command that was started as number 1, 2, ... has written to stderr."""
        return (self.folder / f"stderr-{number}.txt").read_text()

    @contextmanager
    def start(
        self,
        *arguments: str,
        points: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        command: Sequence[str] = COMMAND,
    ) -> Iterator["subprocess.Popen[str]"]:
        """Start the sweep, or continue it, in a separate process; whatever is left of it is killed after the block.

        Args:
            arguments: Further arguments of the command.
            points: Points at which its processes are killed, see `injection/sitecustomize.py`.
            wrapper: Command line that runs the command, such as `unshare`.
            command: Another command of `reid-tune`.
        """
        environment = self._environment() | {"CHAOS_POINTS": ";".join(points)}
        self.commands += 1
        names = (self.folder / f"{name}-{self.commands}.txt" for name in ("stdout", "stderr"))
        with next(names).open("w") as output, next(names).open("w") as errors:
            process = subprocess.Popen(
                [*wrapper, *self._command(*command, *arguments)],
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                text=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_for(
        self, message: str, condition: Callable[[], Any], process: "subprocess.Popen[str] | None" = None
    ) -> Any:
        """Wait until a condition has a true value, and return the value; never for a time.

        Args:
            message: What the condition says, for the error.
            condition: The condition.
            process: Process that must be alive as long as the condition does not hold.
        """
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            has_ended = process is not None and process.poll() is not None
            if has_ended and (value := condition()):
                break
            assert not has_ended, (
                f"{message}: the command has ended with {process and process.returncode}: {self.stderr}"
            )
            assert time.monotonic() < end, f"{message}: not after {PATIENCE:g} s: {self.stderr}"
            time.sleep(0.02)
        return value

    def wait_for_end(self, process: "subprocess.Popen[str]") -> int:
        """Wait for the end of the command, and return its status."""
        self.wait_for("the command ends", lambda: process.poll() is not None)
        return process.returncode

    def finish(self, *arguments: str, points: Sequence[str] = ()) -> None:
        """Continue the sweep to its end, which must be in order."""
        with self.start(*arguments, points=points) as process:
            status = self.wait_for_end(process)
            assert status == 0 and "Traceback" not in self.stderr, f"status {status}: {self.stderr}"

    def has_struck(self, point: str) -> bool:
        """Whether a process was killed at a point."""
        return (self.struck / file_name(point)).exists()

    def processes(self, program: str = "") -> list[psutil.Process]:
        """Return the living processes of the sweep, or those of a program, by its name or the start of Ray's title."""
        processes = list[psutil.Process]()
        for number in self._process_numbers():
            with suppress(psutil.Error, IndexError):
                process = psutil.Process(number)
                is_alive = process.status() != psutil.STATUS_ZOMBIE
                if is_alive and Path(process.cmdline()[0]).name.startswith(program):
                    processes.append(process)
        return processes

    def outcome(self, name: str = "small") -> dict[str, Any]:
        """Return what a sweep in the folder has computed, and what MLflow has of it."""
        report = build_report(SearchAnalysis(replay(read_events(self.folder / "runs" / name / EVENTS))))
        result = {key: value for key, value in report.items() if key not in _TIMES}
        text = json.dumps({"report": result, "mlflow": self._mlflow(name)})
        return json.loads(text.replace(str(self.folder), "FOLDER").replace(f'"{name}"', '"small"'))

    def require_as(self, calm: dict[str, Any], name: str = "small") -> None:
        """Require that a sweep is complete and equals one that nobody disturbed, and that nothing is left of it."""
        outcome = self.outcome(name)
        assert outcome["report"] == calm["report"]
        assert {name: run["status"] for name, run in outcome["mlflow"].items()} == dict.fromkeys(
            calm["mlflow"], "FINISHED"
        )
        for name, run in calm["mlflow"].items():
            assert outcome["mlflow"][name] == run, name
        epochs = [(event.run, event.epoch) for event in self.reports()]
        assert len(epochs) == len(set(epochs)), "an epoch was recorded twice"
        self.require_nothing_left()

    def require_nothing_left(self) -> None:
        """Require that neither a process, a socket, a folder nor a half-written file of the sweep is left."""
        self.wait_for("no process is left", lambda: not self.processes())
        assert str(self.temporary) not in Path("/proc/net/unix").read_text(), "a socket is left"
        assert not list(self.temporary.iterdir()), "a folder for temporary files is left"
        runs = self.folder / "runs" / "small"
        paths = [path for root in (self.folder / "runs", self.folder / "cache") for path in root.rglob("*")]
        assert not [path for path in paths if _PARTIAL.fullmatch(path.name) or path.suffix == ".lock"]
        assert not [path for path in paths if stat.S_ISSOCK(path.lstat().st_mode)]
        assert not (runs / "driver.json").exists() and not (runs / "ray").exists()

    def kill_all(self) -> None:
        """Kill all processes of the sweep."""
        for number in self._process_numbers():
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)

    def _process_numbers(self) -> Iterator[int]:
        """Yield the numbers of all processes with the sweep's mark, also of those that have changed their title.

        `psutil` reads an empty environment for the latter, as it stops at the first empty word.
        """
        mark = f"{MARK}={self.mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    yield int(folder.name)

    def _mlflow(self, sweep: str) -> dict[str, Any]:
        from mlflow import MlflowClient

        client = MlflowClient(self.environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder}/mlflow.db")
        experiment = client.get_experiment_by_name(sweep)
        runs: dict[str, Any] = {}
        for run in client.search_runs([experiment.experiment_id], max_results=100):
            name = run.data.tags["mlflow.runName"]
            assert name not in runs, f"two runs {name} in MLflow"
            histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
            runs[name] = {
                "status": run.info.status,
                "parameters": run.data.params,
                "metrics": {
                    key: [[point.step, None if _MEASURED.match(key) else point.value] for point in points]
                    for key, points in sorted(histories.items())
                },
                # The name of a model's folder has the digest of the file, in which paths are.
                "files": sorted(
                    re.sub("^model-[0-9a-f]{8}$", "model", file.path) for file in client.list_artifacts(run.info.run_id)
                ),
            }
        return runs


@contextmanager
def chaos_sweep(folder: Path, **changes: Any) -> Iterator[ChaosSweep]:
    """Yield a new sweep; all its processes are killed after the block.

    Args:
        folder: Folder of its files.
        changes: Keys of the search-space file.
    """
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        sweep = ChaosSweep(folder, Path(temporary), **changes)
        try:
            yield sweep
        finally:
            sweep.kill_all()


def is_event(sweep: ChaosSweep, kind: type[Event], **fields: Any) -> bool:
    """Return whether the log has an event of a kind with these values."""
    return any(
        isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items())
        for event in sweep.events
    )


def wait_for_suspension(sweep: ChaosSweep, driver: "subprocess.Popen[str]", point: str) -> None:
    """Wait until the driver has suspended itself at a point, see `injection/sitecustomize.py`."""
    is_reached = lambda: sweep.has_struck(point) and is_suspended(driver)  # noqa: E731
    sweep.wait_for(f"suspended {point}", is_reached, driver)


def is_suspended(driver: "subprocess.Popen[str]") -> bool:
    """Return whether a living process is stopped by a signal."""
    return driver.poll() is None and psutil.Process(driver.pid).status() == psutil.STATUS_STOPPED
