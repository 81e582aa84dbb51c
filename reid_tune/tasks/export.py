"""The task `export`: a checkpoint as a checked ONNX file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment
from reid_tune.config.tasks import Export
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import decode_readable
from reid_tune.data.records import read_image_folder
from reid_tune.errors import InputError
from reid_tune.files import check_output_file, require_writable, write_atomic
from reid_tune.tasks.common.calibration import read_threshold
from reid_tune.tasks.common.open_model import CHECKPOINT, open_network, resolve_model
from reid_tune.tasks.common.status_log import logged
from reid_tune.training.devices import worker_devices

if TYPE_CHECKING:
    from reid_tune.deploy.parity import Parity

__all__ = ["export_checkpoint", "run_export"]

_CROPS = 16
_RATES = ("fmr", "fnmr")


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
        RunFailedError: the file does not agree with PyTorch.
    """
    if experiment is not None:
        directory = experiment.task_dir("export")
        with logged(directory, "export") as log:
            job = _job(experiment, experiment.export, reference)
            write_atomic(directory / "experiment.yaml", experiment.to_yaml())
            log.write("STARTED", "export started")
            return job.target, job.write()
    foreign = [key for key in overrides if not key.startswith("export.")]
    if foreign:
        raise InputError(f"{', '.join(foreign)}: without a spec (-e) only keys of export can be set.")
    job = _job(None, build_experiment({}, overrides, "command line").export, reference)
    return job.target, job.write()


def export_checkpoint(path: Path, target: Path, section: Export) -> "Parity":
    """Write a checkpoint's network by its own spec, and over an old file; raises as `run_export`.

    Args:
        section: The form of the file, and the GPU of the comparison; the rest is of no interest.
    """
    return _Job(None, path, target, section.model_copy(update={"overwrite": True, "threshold": None})).write()


class _Job:
    """One export whose input is known to be good; a target that must not be replaced is refused first."""

    def __init__(self, experiment: Experiment | None, path: Path, target: Path, section: Export) -> None:
        from reid_tune.deploy.onnx_export import require_new_file

        require_new_file(check_output_file("export.onnx_file", target), section.overwrite)
        (self._device,) = worker_devices([section.gpu_id], "export.gpu_id")
        self._network, self._experiment = open_network(path, experiment)
        threshold = section.threshold
        self._metadata = read_threshold(Path(threshold), self._network.dimension) if threshold else {}
        if threshold:
            data, rates = (
                self._metadata["threshold_data"],
                {n: 100 * float(self._metadata[f"threshold_{n}"]) for n in _RATES},
            )
            told = ", ".join(f"{name.upper()} {rate:.3g} %" for name, rate in rates.items())
            print(f"threshold: {told}, of {data}; it must be of this model", file=sys.stderr)
        self._section = section
        self.target = target
        require_writable(target)

    def write(self) -> "Parity":
        """Write the file, compared with PyTorch on training images where they are at hand."""
        from reid_tune.deploy.preprocessing import ExportOptions
        from reid_tune.deploy.onnx_export import export_onnx

        section = self._section
        return export_onnx(
            self._network,
            self._experiment,
            self.target,
            crops=_crops(self._experiment),
            options=ExportOptions(section.input, section.precision, section.l2_normalize),
            overwrite=section.overwrite,
            extra_metadata=self._metadata,
            gpu=self._device.index or 0,
        )


def _job(experiment: Experiment | None, section: Export, reference: str | None) -> _Job:
    reference = reference or section.checkpoint
    if not reference:
        raise InputError("export.checkpoint is not set: give a checkpoint, models:/NAME@ALIAS or sweep:NAME.")
    path = resolve_model(reference, CHECKPOINT)
    if path.suffix == ".onnx":
        raise InputError(f"export.checkpoint = {reference!r} is an ONNX file already: give a checkpoint.")
    default = path.with_suffix(".onnx") if path == Path(reference) else Path(f"{_name(reference)}.onnx")
    target = Path(section.onnx_file) if section.onnx_file else default
    return _Job(experiment, path, target, section)


def _crops(experiment: Experiment) -> np.ndarray | None:
    """Some training images as the network takes them; None where there are none that can be read."""
    folders = experiment.dataset.train_folders
    if not folders:
        return None
    try:
        records = read_image_folder(folders[0]).records
    except InputError:
        return None
    chosen = records[:: max(1, len(records) // _CROPS)][:_CROPS]
    _, crops, broken = decode_readable(chosen, ImageSpec.from_experiment(experiment))
    for fault in broken:
        print(f"left out of the comparison: {fault}", file=sys.stderr)
    return crops if len(crops) else None


def _name(reference: str) -> str:
    return reference.split(":", 1)[1].strip("/").replace("/", "-").replace("@", "-")
