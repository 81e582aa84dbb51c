"""Stages that score, on a GPU of the cluster where its runs have GPUs."""

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

_QUIET_SECONDS = 30.0  # before a line says what is waited for

StageFunction = Callable[[SweepConfig, Journal], dict[str, Any]]


class _Log:
    """The driver's log in another process: the state to read, and the events that the driver is to record."""

    def __init__(self, files: SweepStore, state: SweepState) -> None:
        self.files, self.state = files, state
        self.events: list[Event] = []

    @property
    def folder(self) -> Path:
        return self.files.folder

    def emit(self, event: Event) -> None:
        self.events.append(event)


def run_stage_on_gpu(
    stage: StageFunction, sweep: SweepConfig, journal: Journal, placement: "Placement | None"
) -> dict[str, Any]:
    """The result of a stage, computed in a task of Ray that holds a GPU; Ray begins it when one is free.

    The task stays on this node where that has a GPU. Where runs hold no GPU the stage runs in this process, and so it
    does where the sweep's files are in a bucket, of which only this process has a copy. The encryption key does not
    travel: a task finds it where runs do.

    Args:
        placement: What a worker of a run gets; None where not one run fits by now.

    Raises:
        ReidTuneError: what the stage raises.
        InfrastructureError: the process of the task died.
    """
    if placement is None or not placement.gpus or sweep.remote:
        return stage(sweep, journal)
    import ray
    from ray.exceptions import RayError, RayTaskError

    strategy = prefer_node(ray.get_runtime_context().get_node_id())
    held = {"num_cpus": placement.cpus, "num_gpus": 1, "resources": dict(placement.custom)}
    task = ray.remote(**held, scheduling_strategy=strategy, max_retries=0, max_calls=1)(_work)
    try:
        reference = task.remote(stage, _for_task(sweep), journal.state)
        if not ray.wait([reference], timeout=_QUIET_SECONDS)[0]:
            print(f"{stage.__name__}: at work on a GPU of the cluster, or waiting for a free one", file=sys.stderr)
        result, events, text = ray.get(reference)
    except RayTaskError as error:
        raise (error.cause if _is_told(error.cause) else error) from None
    except RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise InfrastructureError(
            f"the process of the stage {stage.__name__} was lost ({last}): go on with --resume auto."
        ) from None
    print(text, end="", file=sys.stderr)
    if isinstance(result, Exception):
        raise result
    for event in events:
        # By this machine's clock, as all of the log.
        journal.emit(replace(event, time=time.time()))
    return dict(result)


def scoring_device(sweep: SweepConfig) -> "torch.device":
    """Where a stage scores: the first GPU that this process sees, unless the sweep's runs are to use none."""
    import torch

    from reid_tune.training.devices import default_device

    return default_device() if sweep.file.resources.gpus_per_worker else torch.device("cpu")


def _is_told(error: BaseException) -> bool:
    """Whether the command line has a sentence for an error."""
    return isinstance(error, ReidTuneError) or is_out_of_memory(error)


def _for_task(sweep: SweepConfig) -> SweepConfig:
    """The sweep without its key; of the machine's GPUs the task sees one, by the index 0."""
    section = sweep.experiment.export.model_copy(update={"gpu_id": 0})
    return replace(sweep, experiment=sweep.experiment.model_copy(update={"encryption_key": None, "export": section}))


def _work(
    stage: StageFunction, sweep: SweepConfig, state: SweepState
) -> tuple[dict[str, Any] | Exception, list[Event], str]:
    """Result or error and events of a stage, and what it has printed to stderr."""
    log: Any = _Log(SweepStore(sweep.folder), state)
    result: dict[str, Any] | Exception
    with contextlib.redirect_stderr(io.StringIO()) as text:
        try:
            result = stage(sweep, log)
        except ReidTuneError as error:
            result = error
    return result, log.events, text.getvalue()
