"""The training of a run in Ray workers, which report to Ray Tune or to Ray Train.

Imports nothing heavy: processes that only supervise a run import this module too.
"""

import contextlib
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
from reid_tune.execution.network_interface import torch_config
from reid_tune.execution.ray_private import trainer_without_group_cleaner
from reid_tune.execution.worker_reports import find_failure_report, pack, pack_start, raise_failure
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import S3Store
from reid_tune.training.compiler import limit_compile_processes

if TYPE_CHECKING:
    from reid_tune.execution.run_files import RunFiles
    from reid_tune.execution.run_source import Attempt
    from reid_tune.training.reporting import Metrics
    from reid_tune.training.system_metrics import SystemMonitor

__all__ = ["make_trial_config", "run_distributed", "run_single_worker"]


def make_trial_config(attempt: "Attempt", scratch: str) -> dict[str, Any]:
    """Return an attempt as the configuration of Tune's trial: plain data without secrets.

    Args:
        attempt: The attempt.
        scratch: Folder, or address of a bucket, for Ray Train's own files.
    """
    return {
        "run": attempt.run,
        # As text, because Tune keeps copies of every trial's configuration.
        "spec": attempt.experiment.model_dump_json(exclude={"encryption_key"}),
        "folder": str(attempt.folder),
        "log": str(attempt.folder.parent / "log.txt"),
        "resume": str(attempt.resume) if attempt.resume else None,
        "features": str(attempt.features) if attempt.features else None,
        "validate_at": list(attempt.validate_at),
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
    """Return the arguments of Ray Train's configuration for its own files in a folder, or at s3://."""
    if not is_url(shared):
        return {"storage_path": shared}
    bucket = S3Store(shared)
    return {"storage_path": bucket.root, "storage_filesystem": bucket.filesystem}


class _RayReporter:
    """Reports every epoch to Ray; `report_epoch` returns when the driver has the report."""

    def __init__(
        self, report: Callable[[dict[str, Any]], None], push: Callable[[], None], usage: "SystemMonitor"
    ) -> None:
        from reid_tune.training.distributed import rank

        self._report, self._push, self._usage = report, push, usage
        self._epochs = 0
        self._nodes: list[str] = []
        self._log = print if rank() == 0 else lambda *_, **__: None

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        from ray.util import get_node_ip_address

        from reid_tune.training.distributed import gather_objects

        self._epochs, self._nodes = num_epochs, gather_objects(get_node_ip_address())
        nodes = ", ".join(self._nodes)
        self._log(f"{steps_per_epoch} steps per epoch, epochs {first_epoch} to {num_epochs}, on {nodes}", flush=True)

    def info(self, text: str) -> None:
        self._log(text, flush=True)

    def report_step(self, step: int, loss: float) -> None:
        pass

    def report_epoch(self, metrics: "Metrics") -> None:
        from reid_tune.training.reporting import epoch_line

        self._log(epoch_line(metrics, self._epochs), flush=True)
        self._push()
        self._report(pack({**metrics, "nodes": self._nodes, "usage": self._usage.collect()}))


def run_single_worker(config: dict[str, Any]) -> None:
    """Train a run with one worker, as a Tune function; a known failure is reported as `failed`."""
    from ray import tune

    tune.report(pack_start())
    failure = _train(config, tune.report)
    if failure:
        tune.report(pack(failure_to_report(failure)))


def run_distributed(config: dict[str, Any]) -> None:
    """Train a run with several workers: Ray Train's trainer in a Tune function."""
    import ray.train
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = {"CPU": config["threads"], **config["custom"]} | ({"GPU": config["gpus"]} if config["gpus"] else {})
    with torch_config("nccl" if config["gpus"] else "gloo") as torch_settings:
        trainer = trainer_without_group_cleaner()(
            _train_worker,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(
                num_workers=config["workers"], use_gpu=bool(config["gpus"]), resources_per_worker=resources
            ),
            torch_config=torch_settings,
            run_config=ray.train.RunConfig(
                name=f"{Path(config['run']).name}-{time.time_ns()}",
                **_train_storage(config["scratch"]),
                failure_config=ray.train.FailureConfig(max_failures=0),
                callbacks=[TuneReportCallback()],
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # Ray wraps the errors of workers in its own classes.
            report = find_failure_report(error)
            if report is None:
                raise
            tune.report(pack(report))


def _train_worker(config: dict[str, Any]) -> None:
    import ray.train

    # Ray Train logs every report at level INFO, in addition to the run's log.
    logging.getLogger().setLevel(logging.WARNING)
    ray.train.report(pack_start())
    failure = _train(config, ray.train.report)
    if failure:
        raise_failure(failure)


def _train(config: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> Failure | None:
    """Train with the output in the run's log; return the failure of a run that cannot succeed."""
    import torch

    from reid_tune.execution.run_files import run_files
    from reid_tune.training.distributed import rank

    torch.set_num_threads(config["threads"])
    limit_compile_processes(config["threads"])
    try:
        with run_files(config, rank()) as files, _output_in(files.log):
            return _train_with_files(files, config, report)
    except InfrastructureError as error:
        return classify_error(error)


def _train_with_files(
    files: "RunFiles", config: dict[str, Any], report: Callable[[dict[str, Any]], None]
) -> Failure | None:
    from reid_tune.config.dataset import VALIDATION_CHOICES
    from reid_tune.config.experiment import Experiment
    from reid_tune.execution.run_files import require_shared_folders
    from reid_tune.training.loop import train
    from reid_tune.training.system_metrics import SystemMonitor

    try:
        experiment, device = Experiment.model_validate_json(config["spec"]), _device(config)
        dataset = experiment.dataset
        validation = [] if dataset.validation in VALIDATION_CHOICES else [dataset.validation]
        require_shared_folders(config["scratch"], *dataset.train_folders, *validation)
        with SystemMonitor(device) as usage:
            train(
                experiment,
                _RayReporter(report, files.push, usage),
                files.folder,
                resume=files.resume,
                validate_at=config["validate_at"],
                features_file=files.features,
                device=device,
            )
    except Exception as error:
        failure = classify_error(error)
        print(f"failed ({failure.kind}): {failure.reason}", flush=True)
        if failure.kind != "error":
            return failure
        traceback.print_exc()
        if config["workers"] > 1:
            raise  # It may follow from the death of another worker, after which a retry succeeds.
        log = f"{config['remote']}/{config['run']}/log.txt" if config["remote"] else config["log"]
        return replace(failure, reason=f"{failure.reason} (see {log})")
    return None


def _device(config: dict[str, Any]) -> Any:
    """Return the device that Ray has assigned to this worker."""
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
def _output_in(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(sys.stdout):
        yield
