"""A small sweep on drawn pedestrians, driven through the command line as a user would."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, KEY_VARIABLE
from reid_tune.demo import draw_demo_data
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import EpochReported, Event

SPEC: dict[str, Any] = {
    "model": {"backbone": "resnet18", "input_width": 16, "input_height": 32},
    "dataset": {
        "train_dataset_dir": "data/bounding_box_train",
        "test_dataset_dir": "data/bounding_box_test",
        "query_dataset_dir": "data/query",
        "batch_size": 16,
        "padding": 2,
    },
    "train": {"num_epochs": 4, "optim": {"lr_steps": [3], "warmup_iters": 1}},
}
SWEEP: dict[str, Any] = {
    "name": "small",
    "spec": "spec.yaml",
    "space": {
        "train.optim.base_lr": {"loguniform": [2.0e-4, 5.0e-3]},
        "train.optim.triplet_loss_margin": {"uniform": [0.1, 0.6]},
    },
    "scheduler": {"reduction_factor": 2},
    "budget": {"trials": 5},
    "confirm": {"candidates": 1, "repeats": 1},
    "resources": {"max_concurrent": 1},
    "registry": {"model": "small"},
}
# What a test decides itself.
_OWN = {"MLFLOW_TRACKING_URI", KEY_VARIABLE, KEY_FILE_VARIABLE}


class Bench:
    """A folder with data, a spec and a sweep file; `environment` adds to that of its commands."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}
        self.pid = 0
        folder.mkdir(parents=True, exist_ok=True)
        draw_demo_data(folder / "data", identities=16, images=6)
        self.write_spec()
        (folder / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}))

    def write_spec(self, **more: Any) -> None:
        """The spec with more keys at its top level."""
        (self.folder / "spec.yaml").write_text(yaml.safe_dump({**SPEC, **more}))

    @property
    def events(self) -> list[Event]:
        """The log so far."""
        return read_events(self.folder / "runs" / "small" / "events.jsonl")

    def reports(self, run: str = "") -> list[EpochReported]:
        """The reports so far of the runs whose names begin with this."""
        return [event for event in self.events if isinstance(event, EpochReported) and event.run.startswith(run)]

    def count(self, kind: type[Event]) -> int:
        """Events of a kind so far."""
        return sum(isinstance(event, kind) for event in self.events)

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and require its exit status."""
        done = subprocess.run(
            self._command(*arguments), cwd=self.folder, env=self._environment(), capture_output=True, text=True
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def interrupt(self, when: Callable[[], bool], how: signal.Signals, *arguments: str) -> tuple[int, str]:
        """Run a command and send it a signal once a condition holds; the exit status and stderr.

        What it prints is also in `stdout.txt` and `stderr.txt`.
        """
        with (self.folder / "stderr.txt").open("w+") as errors, (self.folder / "stdout.txt").open("w") as output:
            process = subprocess.Popen(
                self._command(*arguments),
                cwd=self.folder,
                env=self._environment(),
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
            self.pid = process.pid
            try:
                while not when():
                    assert process.poll() is None, "the command ended before the condition held"
                    time.sleep(0.02)
                process.send_signal(how)
                status = process.wait(timeout=120)
            finally:
                process.kill()
            errors.seek(0)
            return status, errors.read()

    def report(self) -> dict[str, Any]:
        """`reid-tune report --format json`."""
        content: dict[str, Any] = json.loads(self.run("report", "small", "--format", "json").stdout)
        return content

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "reid_tune", *arguments]

    def _environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name not in _OWN} | self.environment
