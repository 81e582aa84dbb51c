"""Export: write each finalist as an ONNX file, verified against PyTorch, and as a checkpoint without optimizer."""

from pathlib import Path
from typing import Any

from reid_tune.checkpoints.checkpoint import strip_checkpoint
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.errors import RunFailedError
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import refit_run
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.refit import find_finalists
from reid_tune.tasks.export import export_checkpoint

__all__ = ["export_finalists", "onnx_path", "refit_checkpoint_path"]


def export_finalists(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """Write the files as the spec's section `export` says.

    Returns:
        File and parity of each finalist, as plain data.

    Raises:
        RunFailedError: a refit did not finish, or an ONNX file deviates from its checkpoint.
    """
    result = {}
    for name in find_finalists(journal):
        target, checkpoint = onnx_path(sweep, name), refit_checkpoint_path(sweep, journal, name)
        parity = export_checkpoint(checkpoint, target, sweep.experiment.export)
        strip_checkpoint(checkpoint, target.with_suffix(".pth"), find_passphrase(sweep.experiment))
        result[name] = {"file": str(target.relative_to(sweep.folder)), "parity": parity.as_dict()}
    return result


def onnx_path(sweep: SweepConfig, name: str) -> Path:
    """Return the path of a finalist's ONNX file."""
    return sweep.folder / "export" / f"{name}.onnx"


def refit_checkpoint_path(sweep: SweepConfig, journal: Journal, name: str, seed: int = 1) -> Path:
    """Return the path of the last checkpoint of a finalist's refit, after fetching the file.

    Raises:
        RunFailedError: the refit did not finish, or its checkpoint is missing.
    """
    run = journal.state.runs.get(refit_run(name, seed))
    if run is None or run.state != "finished":
        reason = f": {run.reason}" if run and run.reason else ""
        raise RunFailedError(
            f"the refit of {name} did not finish{reason}; its log is {sweep.location}/{refit_run(name, seed)}/log.txt."
        )
    path = journal.files.newest_checkpoint(run.name)
    if path is None:
        raise RunFailedError(f"the checkpoint of {run.name} is missing from {sweep.location}.")
    journal.files.fetch(path)
    return path
