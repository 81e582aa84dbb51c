"""The task `export`: write a checkpoint as an ONNX file that was compared with PyTorch."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment
from reid_tune.config.task_sections import Export
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import decode_readable
from reid_tune.data.records import read_image_folder
from reid_tune.deploy.onnx_export import export_onnx, require_new_file
from reid_tune.deploy.parity import Parity
from reid_tune.deploy.preprocessing import ExportOptions
from reid_tune.errors import InputError
from reid_tune.files import check_output_file, require_writable, write_atomic
from reid_tune.tasks.common.calibration import read_threshold
from reid_tune.tasks.common.model_references import CHECKPOINT, resolve_model
from reid_tune.tasks.common.open_model import open_network
from reid_tune.tasks.common.status_log import logged
from reid_tune.training.devices import worker_devices

__all__ = ["export_checkpoint", "run_export"]

_CROPS = 16
_RATES = ("fmr", "fnmr")


def run_export(experiment: Experiment | None, reference: str | None, overrides: dict[str, Any]) -> tuple[Path, Parity]:
    """Export the checkpoint that `reference` or the spec's `export.checkpoint` names.

    Args:
        experiment: The spec; None for that of the checkpoint.
        reference: The checkpoint; None for `export.checkpoint`.
        overrides: Values of the section `export` where there is no spec.

    Returns:
        The file, and the comparison with PyTorch.

    Raises:
        InputError: the checkpoint, the spec or the target is unusable.
        RunFailedError: the file does not agree with PyTorch.
    """
    if experiment is None:
        if others := [key for key in overrides if not key.startswith("export.")]:
            raise InputError(f"{', '.join(others)}: without a spec (-e) only keys of export can be set.")
        section = build_experiment({}, overrides, "command line").export
        path, target = _resolve(reference or section.checkpoint, section.onnx_file)
        return target, _prepare(None, path, target, section)()
    directory, section = experiment.task_dir("export"), experiment.export
    with logged(directory, "export") as log:
        path, target = _resolve(reference or section.checkpoint, section.onnx_file)
        write = _prepare(experiment, path, target, section)
        write_atomic(directory / "experiment.yaml", experiment.to_yaml())
        log.write("STARTED", "export started")
        return target, write()


def export_checkpoint(path: Path, target: Path, section: Export) -> Parity:
    """Export a checkpoint by its own spec; an existing file is replaced.

    Args:
        path: The checkpoint.
        target: The file.
        section: Options of the file, and the GPU of the comparison; its other fields are ignored.

    Raises:
        InputError: the checkpoint or the target is unusable.
        RunFailedError: the file does not agree with PyTorch.
    """
    return _prepare(None, path, target, section.model_copy(update={"overwrite": True, "threshold": None}))()


def _resolve(reference: str | None, onnx_file: str | None) -> tuple[Path, Path]:
    """Return the checkpoint that a reference names, and the file to write."""
    if not reference:
        raise InputError("export.checkpoint is not set: give a checkpoint, models:/NAME@ALIAS or sweep:NAME.")
    path = resolve_model(reference, CHECKPOINT)
    if path.suffix == ".onnx":
        raise InputError(f"export.checkpoint = {reference!r} is an ONNX file already: give a checkpoint.")
    if onnx_file:
        return path, Path(onnx_file)
    return path, path.with_suffix(".onnx") if path == Path(reference) else Path(f"{_file_name(reference)}.onnx")


def _prepare(experiment: Experiment | None, path: Path, target: Path, section: Export) -> Callable[[], Parity]:
    """Check all inputs of an export, and return the function that writes the file.

    A target that must not be replaced is refused before the checkpoint is read.
    """
    require_new_file(check_output_file("export.onnx_file", target), section.overwrite)
    (device,) = worker_devices([section.gpu_id], "export.gpu_id")
    network, experiment = open_network(path, experiment)
    metadata = read_threshold(Path(section.threshold), network.dimension) if section.threshold else {}
    if metadata:
        print(_describe_threshold(metadata), file=sys.stderr)
    require_writable(target)
    return partial(
        export_onnx,
        network,
        experiment,
        target,
        options=ExportOptions(section.input, section.precision, section.l2_normalize),
        crops=_training_crops(experiment),
        overwrite=section.overwrite,
        extra_metadata=metadata,
        gpu=device.index or 0,
    )


def _describe_threshold(metadata: Mapping[str, str]) -> str:
    rates = {name: 100 * float(metadata[f"threshold_{name}"]) for name in _RATES}
    texts = ", ".join(f"{name.upper()} {rate:.3g} %" for name, rate in rates.items())
    return f"threshold: {texts}, of {metadata['threshold_data']}; it must be of this model"


def _training_crops(experiment: Experiment) -> np.ndarray | None:
    """Return up to 16 training images as the network takes them; None if there are none that can be read."""
    folders = experiment.dataset.train_folders
    if not folders:
        return None
    try:
        records = read_image_folder(folders[0]).records
    except InputError:
        return None
    chosen = records[:: max(1, len(records) // _CROPS)][:_CROPS]
    _, crops, errors = decode_readable(chosen, ImageSpec.from_experiment(experiment))
    for error in errors:
        print(f"left out of the comparison: {error}", file=sys.stderr)
    return crops if len(crops) else None


def _file_name(reference: str) -> str:
    return reference.split(":", 1)[1].strip("/").replace("/", "-").replace("@", "-")
