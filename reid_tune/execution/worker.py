"""What runs inside a Ray worker: one run of one spec, reporting to Tune or to Train.

Imports nothing heavy: processes that only supervise a run import this module too.
"""

import contextlib
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_tune.errors import InfrastructureError
from reid_tune.execution.failures import Failure, classify_error, failure_to_report
from reid_tune.execution.gpu_memory import limit_memory
from reid_tune.execution.network import make_torch_config
from reid_tune.execution.ray_private import lean_torch_trainer
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import S3Store
from reid_tune.training.compiler import limit_compile_processes

if TYPE_CHECKING:
    from reid_tune.execution.run_files import RunFiles
    from reid_tune.execution.run_source import Attempt
    from reid_tune.training.reporter import Metrics
    from reid_tune.training.system_metrics import Usage

__all__ = ["run_distributed", "run_single_worker", "make_trial_config", "unpack"]


def make_trial_config(attempt: "Attempt", validate_at: tuple[int, ...], scratch: str) -> dict[str, Any]:
    """An attempt as the plain data that travels to a worker; without secrets."""
    return {
        "run": attempt.run,
        "spec": attempt.experiment.model_dump(mode="json", exclude={"encryption_key"}),
        "folder": str(attempt.folder),
        "log": str(attempt.folder.parent / "log.txt"),
        "resume": str(attempt.resume) if attempt.resume else None,
        "features": str(attempt.features) if attempt.features else None,
        "validate_at": list(validate_at),
        "threads": attempt.resources.per_worker.cpus,
        "gpus": attempt.resources.per_worker.gpus,
        "gpu_context": attempt.gpu_context,
        "custom": dict(attempt.resources.custom),
        "workers": attempt.resources.workers,
        "scratch": scratch,
        "remote": attempt.remote,
        "sweep": str(attempt.sweep_folder),
    }


def _train_storage(shared: str) -> dict[str, Any]:
    """Arguments of Ray Train's configuration that put its own files into a folder, or at s3://."""
    if not is_url(shared):
        return {"storage_path": shared}
    bucket = S3Store(shared)
    return {"storage_path": bucket.root, "storage_filesystem": bucket.filesystem}


def _pack(metrics: "Metrics") -> dict[str, str]:
    # One value of our own, apart from the many that Ray adds to a result.
    return {"payload": json.dumps(dict(metrics))}


def unpack(result: dict[str, Any]) -> dict[str, Any]:
    """The metrics in a result that a run reported."""
    return dict(json.loads(result["payload"]))


class _RayReporter:
    """Hands every epoch to Ray; `report` returns when the driver has it."""

    def __init__(self, report: Callable[[dict[str, Any]], None], push: Callable[[], None], usage: "Usage") -> None:
        from reid_tune.training.distributed import rank

        self._report, self._push, self._usage = report, push, usage
        self._epochs = 0
        self._nodes: list[str] = []
        self._log = print if rank() == 0 else lambda *_, **__: None

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        from ray.util import get_node_ip_address

        from reid_tune.training.distributed import gather

        self._epochs, self._nodes = num_epochs, gather(get_node_ip_address())
        where = ", ".join(self._nodes)
        self._log(f"{steps_per_epoch} steps per epoch, epochs {first_epoch} to {num_epochs}, on {where}", flush=True)

    def say(self, text: str) -> None:
        self._log(text, flush=True)

    def step(self, step: int, loss: float) -> None:
        pass

    def report(self, metrics: "Metrics") -> None:
        from reid_tune.training.progress import epoch_line

        self._log(epoch_line(metrics, self._epochs), flush=True)
        self._push()
        self._report(_pack({**metrics, "nodes": self._nodes, "usage": self._usage.take()}))


def run_single_worker(config: dict[str, Any]) -> None:
    """A run with one worker, as a Tune function; a fault that retrying cannot mend is reported as `failed`."""
    from ray import tune

    failure = _train(config, tune.report)
    if failure:
        tune.report(_pack(failure_to_report(failure)))


def run_distributed(config: dict[str, Any]) -> None:
    """A run with several workers: Ray Train's trainer inside a Tune function."""
    import ray.train
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = {"CPU": config["threads"], **config["custom"]} | ({"GPU": config["gpus"]} if config["gpus"] else {})
    trainer = lean_torch_trainer()(
        _worker,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=config["workers"], use_gpu=bool(config["gpus"]), resources_per_worker=resources
        ),
        torch_config=make_torch_config("nccl" if config["gpus"] else "gloo"),
        run_config=ray.train.RunConfig(
            name=f"{Path(config['run']).name}-{time.time_ns()}",
            **_train_storage(config["scratch"]),
            failure_config=ray.train.FailureConfig(max_failures=0),
            callbacks=[TuneReportCallback()],
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray wraps whatever a worker raises in classes of its own.
        report = _known_failure(error)
        if report is None:
            raise
        tune.report(_pack(report))


def _worker(config: dict[str, Any]) -> None:
    import ray.train

    # Ray Train writes every report out once more.
    logging.getLogger().setLevel(logging.WARNING)
    failure = _train(config, ray.train.report)
    if failure:
        raise RuntimeError(_MARK + json.dumps(failure_to_report(failure)))


_MARK = "reid-tune failure: "


def _known_failure(error: BaseException) -> dict[str, str] | None:
    _, mark, rest = str(error).partition(_MARK)
    return dict(json.loads(rest.splitlines()[0])) if mark else None


def _train(config: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> Failure | None:
    """Train with output in the run's log; the failure where the run cannot succeed."""
    import torch

    from reid_tune.execution.run_files import run_files
    from reid_tune.training.distributed import rank

    torch.set_num_threads(config["threads"])
    limit_compile_processes(config["threads"])
    try:
        with run_files(config, rank()) as files, _logged(files.log):
            return _train_in(files, config, report)
    except InfrastructureError as error:
        return classify_error(error)


def _train_in(files: "RunFiles", config: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> Failure | None:
    from reid_tune.config.experiment import Experiment
    from reid_tune.execution.run_files import require_shared_folders
    from reid_tune.training.loop import train
    from reid_tune.training.system_metrics import Usage

    try:
        experiment, device = Experiment.model_validate(config["spec"]), _device(config)
        require_shared_folders(config["scratch"], *experiment.dataset.train_folders)
        with Usage(device) as usage:
            train(
                experiment,
                _RayReporter(report, files.push, usage),
                files.folder,
                resume=files.resume,
                validate_at=config["validate_at"],
                features=files.features,
                device=device,
            )
    except Exception as error:
        failure = classify_error(error)
        print(f"failed ({failure.kind}): {failure.reason}", flush=True)
        if failure.kind != "error":
            return failure
        traceback.print_exc()
        if config["workers"] > 1:
            raise  # Perhaps only the echo of another worker's death, which a new attempt mends.
        log = f"{config['remote']}/{config['run']}/log.txt" if config["remote"] else config["log"]
        return replace(failure, reason=f"{failure.reason} (see {log})")
    return None


def _device(config: dict[str, Any]) -> Any:
    """The device that Ray has given this worker."""
    import torch

    if not config["gpus"]:
        return torch.device("cpu")
    if config["workers"] == 1:
        limit_memory(config["gpus"], config["gpu_context"])
        return torch.device("cuda", 0)
    from ray.train.torch import get_device

    device = get_device()
    torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(sys.stdout):
        yield
