"""Stages that score embeddings: as a Ray task that holds a GPU where the sweep's runs have GPUs."""

import contextlib
import io
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_tune.errors import InfrastructureError, ReidTuneError
from reid_tune.execution.ray_private import prefer_node
from reid_tune.journal.events import Event
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import SweepState
from reid_tune.journal.sweep_store import SweepStore
from reid_tune.search_space.load import SweepConfig
from reid_tune.training.memory import is_out_of_memory

if TYPE_CHECKING:
    import torch

    from reid_tune.execution.placement import Placement

__all__ = ["StageFunction", "run_stage_on_gpu", "scoring_device"]

_QUIET_SECONDS = 30.0  # before a line says that the stage is waiting or computing

StageFunction = Callable[[SweepConfig, Journal], dict[str, Any]]  # returns the result of the stage


class _TaskJournal:
    """The driver's journal in another process: its state, and the events that the driver is to record afterwards."""

    def __init__(self, files: SweepStore, state: SweepState) -> None:
        self.files, self.state = files, state
        self.events: list[Event] = []

    @property
    def folder(self) -> Path:
        return self.files.folder

    def emit(self, event: Event) -> None:
        self.events.append(event)


def run_stage_on_gpu(
    name: str, stage: StageFunction, sweep: SweepConfig, journal: Journal, placement: "Placement | None"
) -> dict[str, Any]:
    """Run a stage in a Ray task that holds a GPU, and return its result; Ray starts the task when a GPU is free.

    The task runs on this node where that has a free GPU. The stage runs in this process where runs hold no GPU, and
    where the sweep's files are in a bucket, of which only this process has a copy. The encryption key is not passed to
    the task, which finds it where runs do.

    Args:
        name: Name of the stage, for messages.
        stage: Function of the stage.
        sweep: The sweep.
        journal: Its event log and state.
        placement: Placement of a run's workers; None where no run fits at present.

    Raises:
        ReidTuneError: the stage raised it.
        InfrastructureError: the process of the task died.
    """
    if placement is None or not placement.gpus or sweep.remote:
        return stage(sweep, journal)
    import ray

    strategy = prefer_node(ray.get_runtime_context().get_node_id())
    options = {"num_cpus": placement.cpus, "num_gpus": 1, "resources": dict(placement.custom)}
    task = ray.remote(**options, scheduling_strategy=strategy, max_retries=0, max_calls=1)(_run_in_task)
    result, events, text = _wait_for_task(name, task.remote(stage, _for_task(sweep), journal.state))
    print(text, end="", file=sys.stderr)
    for event in events:
        # All times in the log are of this machine's clock.
        journal.emit(replace(event, time=time.time()))
    if isinstance(result, Exception):
        raise result
    return dict(result)


def _wait_for_task(name: str, reference: Any) -> Any:
    """Return the result of a task, see `_run_in_task`; a line says if it takes long."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        if not ray.wait([reference], timeout=_QUIET_SECONDS)[0]:
            print(f"{name}: running on a GPU of the cluster, or waiting for a free one", file=sys.stderr)
        return ray.get(reference)
    except RayTaskError as error:
        raise (error.cause if _is_reported(error.cause) else error) from None
    except RayError as error:
        last_line = str(error).strip().splitlines()[-1]
        raise InfrastructureError(
            f"the process of the stage {name} was lost ({last_line}): continue with --resume auto."
        ) from None


def scoring_device(sweep: SweepConfig) -> "torch.device":
    """Return the device of a stage's scores: the first visible GPU, or the CPU where the sweep's runs use no GPU."""
    import torch

    from reid_tune.training.devices import default_device

    return default_device() if sweep.file.resources.gpus_per_worker else torch.device("cpu")


def _is_reported(error: BaseException) -> bool:
    """Whether the command line reports an error without a traceback."""
    return isinstance(error, ReidTuneError) or is_out_of_memory(error)


def _for_task(sweep: SweepConfig) -> SweepConfig:
    """Return the sweep without its key; the task sees one of the machine's GPUs, as index 0."""
    section = sweep.experiment.export.model_copy(update={"gpu_id": 0})
    return replace(sweep, experiment=sweep.experiment.model_copy(update={"encryption_key": None, "export": section}))


def _run_in_task(
    stage: StageFunction, sweep: SweepConfig, state: SweepState
) -> tuple[dict[str, Any] | Exception, list[Event], str]:
    """Run a stage, and return its result or error, its events, and its output on stderr."""
    journal: Any = _TaskJournal(SweepStore(sweep.folder), state)
    result: dict[str, Any] | Exception
    with contextlib.redirect_stderr(io.StringIO()) as text:
        try:
            result = stage(sweep, journal)
        except ReidTuneError as error:
            result = error
    return result, journal.events, text.getvalue()
