"""Small trainings on Ray, one after the other: as runs of a sweep, and as plain Tune functions.

Imported inside a local cluster only: Ray reads its settings when it is imported.
"""

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from ray import tune

from reid_tune.config.experiment import Experiment
from reid_tune.execution.fixed_runs import FixedRuns
from reid_tune.execution.run_source import ResourceRequest
from reid_tune.execution.tune_runner import run_all
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import AttemptStarted, EpochReported
from reid_tune.journal.journal import Journal
from reid_tune.search_space.load import SweepConfig
from reid_tune.training.loop import train

__all__ = ["Trial", "report_cost", "run_plain_trials", "run_trials", "trial_cost"]


@dataclass
class Trial:
    """Times of a trial.

    Attributes:
        start: Time of its start.
        arrivals: Times at which its reports arrived.
        steps: Seconds of its training steps, by epoch.
    """

    start: float
    arrivals: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


def trial_cost(trials: Sequence[Trial]) -> float:
    """Return the median seconds from a trial's start to that of the next one, without the training steps."""
    return statistics.median(later.start - trial.start - sum(trial.steps) for trial, later in pairwise(trials))


def report_cost(trials: Sequence[Trial]) -> float:
    """Return the median seconds from a report's arrival to that of the next one, without the training steps."""
    return statistics.median(
        (trial.arrivals[-1] - trial.arrivals[0] - sum(trial.steps[1:])) / (len(trial.arrivals) - 1) for trial in trials
    )


def run_trials(sweep: SweepConfig, values: Mapping[str, Any], runs: int, workers: int, images: int) -> list[Trial]:
    """Train as the stages of a sweep do.

    Args:
        sweep: The sweep.
        values: Changed values of the sweep's spec.
        runs: Number of trials.
        workers: Number of workers of a trial.
        images: Number of images that an epoch trains on.
    """
    names = [f"with-{workers}/{number}" for number in range(runs)]
    with Journal(sweep.folder) as journal:
        source = FixedRuns(sweep, journal, dict.fromkeys(names, values), ResourceRequest(cpus=workers, workers=workers))
        run_all(source, lambda: 1, workers, sweep.folder / "ray", 600)
    trials: dict[str, Trial] = {}
    for event in read_events(journal.path):
        if isinstance(event, AttemptStarted):
            trials[event.run] = Trial(event.time)
        elif isinstance(event, EpochReported):
            trials[event.run].arrivals.append(event.time)
            trials[event.run].steps.append(images / event.metrics["images_per_second"])
    return [trials[name] for name in names]


def run_plain_trials(experiment: Experiment, runs: int, images: int) -> list[Trial]:
    """Train the same with one worker as a plain Tune function."""
    callback = _Collector(images)
    spec = experiment.model_dump(mode="json")

    def function(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        train(Experiment.model_validate(spec), _PlainReporter(), Path(tune.get_context().get_trial_dir()))

    with tempfile.TemporaryDirectory() as storage, contextlib.redirect_stdout(io.StringIO()):
        tune.Tuner(
            tune.with_resources(function, {"CPU": 1}),
            tune_config=tune.TuneConfig(num_samples=runs, max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=storage, verbose=0, callbacks=[callback]),
        ).fit()
    return list(callback.trials.values())


class _PlainReporter:
    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        pass

    def info(self, text: str) -> None:
        pass

    def report_step(self, step: int, loss: float) -> None:
        pass

    def report_epoch(self, metrics: Mapping[str, Any]) -> None:
        tune.report(dict(metrics))


class _Collector(tune.Callback):
    def __init__(self, images: int) -> None:
        self.images = images
        self.trials: dict[str, Trial] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.trials[trial.trial_id] = Trial(time.time())

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.trials[trial.trial_id].arrivals.append(time.time())
        self.trials[trial.trial_id].steps.append(self.images / result["images_per_second"])
