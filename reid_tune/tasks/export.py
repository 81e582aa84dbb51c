"""The task `export`: a checkpoint as a checked ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.data.images import decode
from reid_tune.data.records import read_folder
from reid_tune.errors import InputError
from reid_tune.spec.experiment import Experiment
from reid_tune.spec.load import build_experiment
from reid_tune.tasks.models import checkpoint_experiment, matching_experiment, restore_network
from reid_tune.tasks.references import CHECKPOINT, resolve
from reid_tune.training.data import interpolation

if TYPE_CHECKING:
    from reid_tune.deploy.parity import Parity

__all__ = ["export_checkpoint", "run_export"]

_CROPS = 16


def run_export(
    experiment: Experiment | None, reference: str | None, overrides: dict[str, Any]
) -> "tuple[Path, Parity]":
    """Export `export.checkpoint` of a spec, or what `reference` names with the spec of its own checkpoint.

    Args:
        overrides: Values of the section `export` where there is no spec.

    Returns:
        The file, and the comparison with PyTorch.

    Raises:
        InputError: checkpoint, spec or target are unusable.
        FailedRun: the file does not agree with PyTorch.
    """
    if experiment is None:
        foreign = [key for key in overrides if not key.startswith("export.")]
        if foreign:
            raise InputError(f"{', '.join(foreign)}: without a spec (-e) only keys of export can be set.")
        section = build_experiment({}, overrides, "command line").export
    else:
        section = experiment.export
    reference = reference or section.checkpoint
    if not reference:
        raise InputError("export.checkpoint is not set: give a checkpoint, models:/NAME@ALIAS or sweep:NAME.")
    path = resolve(reference, CHECKPOINT)
    default = path.with_suffix(".onnx") if path == Path(reference) else Path(f"{_name(reference)}.onnx")
    target = Path(section.onnx_file) if section.onnx_file else default
    return target, export_checkpoint(path, target, experiment=experiment, overwrite=section.overwrite)


def export_checkpoint(
    path: Path, target: Path, *, experiment: Experiment | None = None, overwrite: bool = False
) -> "Parity":
    """Write a checkpoint's network as ONNX, compared with PyTorch on training images where they are at hand."""
    from reid_tune.deploy.onnx_export import export_onnx

    checkpoint = load_checkpoint(path)
    own = checkpoint_experiment(checkpoint, path)
    experiment = matching_experiment(experiment, checkpoint, path) if experiment else own
    network = restore_network(checkpoint, experiment, path, torch.device("cpu"))
    return export_onnx(network, experiment, target, crops=_crops(experiment), overwrite=overwrite)


def _crops(experiment: Experiment) -> np.ndarray | None:
    folder = experiment.dataset.train_dataset_dir
    if not folder or not Path(folder).is_dir():
        return None
    records = read_folder(folder).records
    model = experiment.model
    chosen = records[:: max(1, len(records) // _CROPS)][:_CROPS]
    return decode(chosen, model.input_height, model.input_width, interpolation(model.backbone))


def _name(reference: str) -> str:
    return reference.split(":", 1)[1].strip("/").replace("/", "-").replace("@", "-")
