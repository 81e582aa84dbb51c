"""Runs of a source on Ray Tune."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from reid_tune.sweep.runs.cluster import Placement
from reid_tune.sweep.runs.janitor import remove_orphans
from reid_tune.sweep.runs.source import Attempt, Source
from reid_tune.sweep.runs.trial import distributed_run, single_run, trial_config, unpack

__all__ = ["run_all"]


def run_all(source: Source, placement: Placement, workers: int, validate_at: tuple[int, ...], scratch: Path) -> None:
    """Run until the source is done; Ray's own files go to `scratch` and are removed behind it.

    One worker is a Tune function in a fresh process; several are Ray Train's trainer inside one. Ray's snapshots are
    never read: a new process builds a new source from the log.
    """
    if source.done():
        return
    at_once = placement.at_once
    wires = _Wires(source, at_once, lambda attempt: trial_config(attempt, placement, workers, validate_at, scratch))
    trainable = tune.with_resources(single_run, {"CPU": placement.cpus, "GPU": placement.gpus})
    if workers > 1:
        # No CPU for the driver of a run: its workers take all.
        trainable = tune.with_resources(distributed_run, {"node:__internal_head__": 0.001})
    try:
        with _quiet(scratch):
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=wires.searcher, scheduler=wires.scheduler, num_samples=-1, reuse_actors=False
                ),
                run_config=tune.RunConfig(
                    name=f"ray-{time.time_ns()}", storage_path=str(scratch), verbose=0, callbacks=[_Janitor()]
                ),
            ).fit()
        remove_orphans()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Wires:
    """Connects a source with Tune's searcher, which starts runs, and its scheduler, which sees every report."""

    def __init__(self, source: Source, at_once: int, config: Callable[[Attempt], dict[str, Any]]) -> None:
        self.source = source
        self.at_once = at_once
        self.config = config
        self.live: dict[str, str] = {}
        self.over: set[str] = set()
        self.searcher = _Searcher(self)
        self.scheduler = _Scheduler(self)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles what it is given into a snapshot that nobody reads.
        return object, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Wires":
        return self

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.source.done():
            return str(Searcher.FINISHED)
        if len(self.live) >= self.at_once:
            return None
        attempt = self.source.next()
        if attempt is None:
            return None
        self.live[trial_id] = attempt.run
        return self.config(attempt)

    def report(self, trial_id: str, result: dict[str, Any]) -> bool:
        if trial_id in self.over:
            return False
        goes_on = self.source.report(self.live[trial_id], unpack(result))
        if not goes_on:
            self.over.add(trial_id)
        return goes_on

    def complete(self, trial_id: str, error: bool) -> None:
        run = self.live.pop(trial_id)
        if trial_id not in self.over:
            self.source.lost(run, "the worker process died" if error else "the run ended before its last epoch")


class _Searcher(Searcher):
    def __init__(self, wires: _Wires) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self.wires = wires

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self.wires.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        pass

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.wires.complete(trial_id, error)

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is resumed from its event log")


class _Scheduler(FIFOScheduler):
    def __init__(self, wires: _Wires) -> None:
        super().__init__()
        self.wires = wires

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self.wires.report(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


class _Janitor(tune.Callback):
    """Frees what stopped trainers hold, at most once a second."""

    last = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self.last < 1:
            return
        self.last = time.monotonic()
        with contextlib.suppress(Exception):  # A failing clean-up must not end the sweep; the next second tries again.
            remove_orphans()


@contextlib.contextmanager
def _quiet(scratch: Path) -> Iterator[None]:
    """Keep Tune's boxes and log lines off the terminal, which belongs to the live table."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    with (scratch / "output.txt").open("a") as file, contextlib.redirect_stdout(file):
        yield
