"""Runs of a source on Ray Tune."""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ray import tune
from ray.tune.error import TuneError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from reid_tune.environment import set_defaults
from reid_tune.errors import InfrastructureError, ReidTuneError
from reid_tune.execution.failures import Failure
from reid_tune.execution.ray_private import remove_orphaned_groups, request_stop
from reid_tune.execution.run_source import Attempt, RunSource
from reid_tune.execution.worker import make_trial_config, run_distributed, run_single_worker, unpack
from reid_tune.storage.s3 import S3Store

__all__ = ["run_all"]

_Answer = TypeVar("_Answer")


def run_all(
    source: RunSource,
    room: Callable[[], int],
    workers: int,
    validate_at: tuple[int, ...],
    scratch: Path,
    timeout: float,
    remote: S3Store | None = None,
) -> None:
    """Run until the source is done; Ray's own files go to `scratch` and are removed behind it.

    One worker is a Tune function in a fresh process; several are Ray Train's trainer inside one. Ray's snapshots are
    never read: a new process builds a new source from the log.

    Args:
        room: How many runs the cluster has room for; asked once a second, as nodes come and go.
        timeout: Seconds without a report behind which a run is given up.
        remote: Where Ray Train's own files go if nodes do not share `scratch`; removed behind it, too.

    Raises:
        ReidTuneError: what the source raises; runs at work are then ended by Ray, and go on when the sweep is resumed.
    """
    if source.is_done():
        return
    shared = str(remote or scratch)
    wires = _TuneBridge(source, room, lambda attempt: make_trial_config(attempt, validate_at, shared), timeout)
    trainable = tune.with_resources(run_single_worker, _bundles)
    if workers > 1:
        # No CPU for the driver of a run: its workers take all.
        trainable = tune.with_resources(run_distributed, {"node:__internal_head__": 0.001})
    try:
        with _quiet(scratch):
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=wires.searcher, scheduler=wires.scheduler, num_samples=-1, reuse_actors=False
                ),
                run_config=tune.RunConfig(
                    name=f"ray-{time.time_ns()}", storage_path=str(scratch), verbose=0, callbacks=[_PollCallback(wires)]
                ),
            ).fit()
        remove_orphaned_groups()
    except OSError as error:  # Of Ray's own files, which nobody needs again.
        raise InfrastructureError(f"cannot write {scratch}: {error.strerror}; nothing finished is lost.") from None
    except TuneError as error:
        last = str(error).strip().splitlines()[-1]
        raise InfrastructureError(f"Ray Tune gave up ({last}): go on with --resume auto.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(ReidTuneError):
            if remote:
                remote.remove_tree("")
    if wires.error is not None:
        raise wires.error


def _bundles(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What one run of one worker takes; out of memory on its share of a GPU it gets a GPU alone."""
    return tune.PlacementGroupFactory([{"CPU": config["threads"], "GPU": config["gpus"], **config["more"]}])


class _TuneBridge:
    """Connects a source with Tune's searcher, which starts runs, and its scheduler, which sees every report.

    What the source raises is kept, all runs are ended, and `run_all` raises it: Tune would bury it in an error of its
    own.
    """

    def __init__(
        self, source: RunSource, room: Callable[[], int], config: Callable[[Attempt], dict[str, Any]], timeout: float
    ) -> None:
        self.source = source
        self.room = room
        self.at_once = room()
        self.config = config
        self.timeout = timeout
        self.error: Exception | None = None
        self.live: dict[str, str] = {}
        self.heard: dict[str, float] = {}
        self.over: set[str] = set()
        self.searcher = _Searcher(self)
        self.scheduler = _Scheduler(self)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles what it is given into a snapshot that nobody reads.
        return object, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "_TuneBridge":
        return self

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._ask(self.source.is_done, True):
            return str(Searcher.FINISHED)
        if not self.live:
            self.at_once = self._ask(self.room, 0)  # Tune then asks nobody but its searcher.
        attempt = self._ask(self.source.next_attempt, None) if len(self.live) < self.at_once else None
        if attempt is None:
            return None
        self.live[trial_id], self.heard[trial_id] = attempt.run, time.monotonic()
        return self.config(attempt)

    def report(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.heard[trial_id] = time.monotonic()
        if trial_id in self.over:
            return False
        goes_on = self._ask(lambda: self.source.report(self.live[trial_id], unpack(result)), False)
        if not goes_on:
            self.over.add(trial_id)
        return goes_on

    def complete(self, trial_id: str, error: str | None) -> None:
        run = self.live.pop(trial_id)
        if trial_id not in self.over:
            self._lose(run, _death(error))

    def waits(self, trial_id: str) -> None:
        """A run waits for its place: another job has it, or the machine is still to come."""
        if trial_id in self.live:
            self.heard[trial_id] = time.monotonic()

    def unwanted(self) -> list[str]:
        """Ids of Tune's trials to be stopped; called once a second."""
        self._ask(self.source.poll, None)
        self.at_once = self._ask(self.room, 0)
        late = time.monotonic() - self.timeout
        for trial_id, run in self.live.items():
            if trial_id in self.over:
                continue
            if self.heard[trial_id] < late:
                self._lose(run, Failure("timeout", f"no report for {self.timeout / 60:g} minutes"))
                self.over.add(trial_id)
            elif not self._ask(partial(self.source.is_running, run), False):
                self.over.add(trial_id)
        return [trial_id for trial_id in self.live if trial_id in self.over]

    def _lose(self, run: str, failure: Failure) -> None:
        self._ask(lambda: self.source.report_lost(run, failure), None)

    def _ask(self, question: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
        """The source's answer; it is not asked any more once it has raised."""
        if self.error is None:
            try:
                return question()
            except Exception as error:
                self.error = error
        return otherwise


def _death(error: str | None) -> Failure:
    if error is None:
        return Failure("lost_worker", "the run ended before its last epoch")
    if "OutOfMemoryError" in error:
        return Failure("lost_worker", "Ray ended the worker process because the node ran out of memory")
    return Failure("lost_worker", "the worker process died")


class _Searcher(Searcher):
    def __init__(self, wires: _TuneBridge) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self.wires = wires

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self.wires.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        pass

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.wires.complete(trial_id, self.wires.scheduler.errors.pop(trial_id, "") if error else None)

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is resumed from its event log")


class _Scheduler(FIFOScheduler):
    def __init__(self, wires: _TuneBridge) -> None:
        super().__init__()
        self.wires = wires
        self.errors: dict[str, str] = {}
        self.controller: Any = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.controller = tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self.wires.report(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Tune calls this before the searcher hears of the end.
        self.errors[trial.trial_id] = str(trial.get_error())


class _PollCallback(tune.Callback):
    """Once a second: frees what stopped trainers hold, and stops runs that are no longer wanted."""

    def __init__(self, wires: _TuneBridge) -> None:
        self.wires = wires
        self.last = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self.last < 1:
            return
        self.last = time.monotonic()
        with contextlib.suppress(Exception):  # A failing clean-up must not end the sweep; the next second tries again.
            remove_orphaned_groups()
        for trial in trials:
            if trial.status == "PENDING":
                self.wires.waits(trial.trial_id)
        unwanted = self.wires.unwanted()
        for trial in trials:
            if trial.trial_id in unwanted and not trial.is_finished():
                request_stop(self.wires.scheduler.controller, trial)


@contextlib.contextmanager
def _quiet(scratch: Path) -> Iterator[None]:
    """Keep Tune's boxes and log lines off the terminal, which belongs to the live table."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    set_defaults({"PYTHONWARNINGS": "ignore"})
    with (scratch / "output.txt").open("a") as file, contextlib.redirect_stdout(file):
        yield
