"""Models from any file or reference: checkpoints of reid-tune or other tools, ONNX files, registered models, sweeps."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint
from reid_tune.checkpoints.filenames import BEST, LATEST, newest_checkpoint
from reid_tune.checkpoints.third_party_file import read_third_party_weights
from reid_tune.checkpoints.third_party_keys import extract_tensors, to_reid_tune_keys
from reid_tune.config.diff import network_differences
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.data.image_spec import ImageSpec
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.errors import InputError
from reid_tune.evaluation.distances import fix_cublas_workspace
from reid_tune.journal.sweep_lookup import sweep_folder
from reid_tune.modeling.network import ReIDNet, build_network
from reid_tune.modeling.weights import is_optional, load_weights
from reid_tune.training.embedding import Embedder, EmbedFunction, make_embed_function
from reid_tune.training.memory import is_out_of_memory

__all__ = [
    "CHECKPOINT",
    "ONNX",
    "ModelFile",
    "checkpoint_experiment",
    "model_name",
    "open_network",
    "resolve_model",
    "resolve_models",
]

# Names of the files in a version of a registered model.
CHECKPOINT, ONNX = "checkpoint.pth", "model.onnx"

_NAMED = re.compile(r"(?:models:/|sweep:)([^@/]+)")
_SWEEP = re.compile(r"sweep:([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:/(\d+))?")
_SHOWN = 4  # Names of missing weights in a message.


def resolve_model(reference: str, file_name: str) -> Path:
    """Return the local file of a model.

    Args:
        reference: A path, `models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/ID/PATH`, `sweep:NAME` (the winner) or
            `sweep:NAME/7` (a trial).
        file_name: CHECKPOINT or ONNX, the file of a registered model; of a sweep's winner ONNX is preferred.

    Raises:
        InputError: the model or the file does not exist.
    """
    if reference.startswith("sweep:"):
        return _resolve_sweep(reference, file_name)
    if reference.startswith(("models:/", "runs:/")):
        return _resolve_registered(reference, file_name)
    path = Path(reference)
    if not path.is_file():
        hint = " (it is a folder: give a file in it)" if path.is_dir() else ""
        raise InputError(f"there is no checkpoint {reference}{hint}.")
    return path


def resolve_models(reference: str, file_name: str) -> list[Path]:
    """Return all checkpoints of a folder, or the one file that `resolve_model` finds.

    Of a folder these are all `model_epoch_*.pth` by epoch; where it has none, all .pth and .onnx files by name. The
    copies of a run's latest and best checkpoint are left out.

    Raises:
        InputError: the model does not exist, or the folder has no such file.
    """
    folder = Path(reference)
    if not folder.is_dir():
        return [resolve_model(reference, file_name)]
    files = [path for path in folder.iterdir() if path.is_file() and path.name not in (LATEST, BEST)]
    epochs = [path for path in files if path.match("model_epoch_*.pth")]
    models = epochs or [path for path in files if path.suffix in (".pth", ".onnx") and not path.name.startswith(".")]
    if not models:
        raise InputError(f"the folder {reference} has no checkpoint: it should hold model_epoch_*.pth, .pth or .onnx.")
    return sorted(models, key=lambda path: _natural_order(path.name))


def model_name(reference: str, path: Path) -> str:
    """Return the name of the registered model or the sweep in a reference, otherwise the stem of its file."""
    match = _NAMED.match(reference)
    return match[1] if match else path.stem


@dataclass(frozen=True)
class ModelFile:
    """A checkpoint or an ONNX file, which has its own preprocessing; called with a device, it opens the model there.

    Raises:
        InputError: when opened, the file is unusable or does not fit the spec.
    """

    path: Path
    experiment: Experiment

    def __call__(self, device: torch.device) -> Embedder:
        if self.experiment.train.deterministic:
            fix_cublas_workspace()
        batch_size = self.experiment.dataset.val_batch_size
        if self.path.suffix == ".onnx":
            model = OnnxModel(self.path, threads=torch.get_num_threads(), gpu=device.index or 0)
            embed = _report_out_of_memory(partial(model.embed, batch_size=batch_size), batch_size)
            return Embedder(model.preprocessing.image_spec, model.dimension, embed)
        network, experiment = open_network(self.path, self.experiment)
        embed = _report_out_of_memory(make_embed_function(network.to(device), experiment), batch_size)
        return Embedder(ImageSpec.from_experiment(experiment), network.dimension, embed)


def open_network(path: Path, experiment: Experiment | None) -> tuple[ReIDNet, Experiment]:
    """Return the network in a checkpoint of reid-tune or another tool, and the spec that describes it.

    The network is on the CPU, in eval mode and without its classifier.

    Args:
        path: The checkpoint.
        experiment: The user's spec; None takes the checkpoint's own.

    Raises:
        InputError: the file is unusable, or does not fit the spec.
    """
    try:
        checkpoint = load_checkpoint(path, find_passphrase(experiment))
    except InputError:
        network = _third_party_network(path, experiment) if experiment else None
        if network is None or experiment is None:
            raise
        return network, experiment
    trained = checkpoint_experiment(checkpoint, path)
    if experiment and (differences := network_differences(experiment, trained)):
        raise InputError(f"{path} was trained with another spec: {'; '.join(differences)}.")
    experiment = experiment or trained
    return _restore_network(checkpoint, experiment, path), experiment


def checkpoint_experiment(checkpoint: Checkpoint, path: Path) -> Experiment:
    """Return the spec that a checkpoint was trained with.

    Raises:
        InputError: this version cannot read the spec.
    """
    try:
        return Experiment.model_validate(checkpoint.spec)
    except ValueError:
        raise InputError(f"{path} holds a spec that this version cannot read.") from None


def _restore_network(checkpoint: Checkpoint, experiment: Experiment, path: Path) -> ReIDNet:
    network = build_network(experiment.model)
    weights = {name: tensor for name, tensor in checkpoint.model.items() if not name.startswith("classifier.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"{path} does not fit the network of the spec: {first}") from None
    return network.eval()


def _third_party_network(path: Path, experiment: Experiment) -> ReIDNet | None:
    """Return the network of a spec with the weights of another tool's ReID checkpoint, in eval mode, no classifier.

    Returns:
        None where the file is not such a checkpoint.

    Raises:
        InputError: the file lacks weights of the spec's network.
    """
    try:
        weights = to_reid_tune_keys(extract_tensors(read_third_party_weights(path)))
    except InputError:
        return None
    network = build_network(experiment.model)
    report = load_weights(network, weights, hw_ratio=experiment.model.pretrain_hw_ratio)
    loaded = {*report.loaded, *report.resized}
    if not any(name.startswith("backbone.") for name in loaded):
        return None
    if missing := [name for name in network.state_dict() if name not in loaded and not is_optional(name)]:
        others = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(
            f"{path} lacks {', '.join(missing[:_SHOWN])}{others} of the spec's network, or has them in another shape: "
            "give a whole ReID model, and the section model that it was trained with."
        )
    return network.eval()


def _resolve_registered(reference: str, file_name: str) -> Path:
    from reid_tune.tracking.registry.resolve import resolve
    from reid_tune.tracking.store import tracking_uri

    path = resolve(reference, tracking_uri())
    if not path.is_dir():
        return path
    if not (path / file_name).is_file():
        names = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
        raise InputError(f"{reference} has no {file_name}; it has {names}.")
    return path / file_name


def _resolve_sweep(reference: str, file_name: str) -> Path:
    match = _SWEEP.fullmatch(reference)
    if match is None:
        raise InputError(f"'{reference}' does not name a model: write sweep:NAME or sweep:NAME/7.")
    name, trial = match.groups()
    folder = sweep_folder(name)
    onnx_file = folder / "export" / "winner.onnx"
    if trial is None and file_name == ONNX and onnx_file.is_file():
        return onnx_file
    run = folder / "refit" / "winner" if trial is None else folder / "trials" / f"{int(trial):04d}"
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        raise InputError(f"{reference} has no checkpoint: the run was removed, or has not finished an epoch.")
    return checkpoint


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders numbers by value: 999 before 1000."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _report_out_of_memory(embed: EmbedFunction, batch_size: int) -> EmbedFunction:
    """Return the function with an actionable message where the device has too little memory."""

    def embed_within(images: np.ndarray) -> np.ndarray:
        try:
            return embed(images)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"the device's memory is too small for dataset.val_batch_size = {batch_size}: lower it."
            ) from None

    return embed_within
