"""Models from files: checkpoints and ONNX files, ready to embed images."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint
from reid_tune.config.diff import network_differences
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.data.image_spec import ImageSpec
from reid_tune.errors import InputError
from reid_tune.evaluation.distances import fix_cublas_workspace
from reid_tune.modeling.network import ReIDNet, build_network
from reid_tune.training.embed import Embed, Embedder, network_embed
from reid_tune.training.memory import is_out_of_memory
from reid_tune.training.pretrained import foreign_network

__all__ = ["ModelFile", "checkpoint_experiment", "matching_experiment", "open_network", "restore_network"]


@dataclass(frozen=True)
class ModelFile:
    """A checkpoint, or an ONNX file, which brings its own preprocessing; called with a device, it opens there.

    Raises:
        InputError: when opened, the file is unusable or does not fit the spec.
    """

    path: Path
    experiment: Experiment

    def __call__(self, device: torch.device) -> Embedder:
        if self.experiment.train.deterministic:
            fix_cublas_workspace()
        if self.path.suffix == ".onnx":
            return self._onnx(device)
        network, experiment = open_network(self.path, self.experiment)
        network = network.to(device)
        embed = _within_memory(network_embed(network, experiment), experiment.dataset.val_batch_size)
        return Embedder(ImageSpec.from_experiment(experiment), network.dimension, embed)

    def _onnx(self, device: torch.device) -> Embedder:
        from reid_tune.deploy.onnx_model import OnnxModel

        batch_size = self.experiment.dataset.val_batch_size
        model = OnnxModel(self.path, threads=torch.get_num_threads(), gpu=device.index or 0)
        embed = _within_memory(partial(model.embed, batch_size=batch_size), batch_size)
        return Embedder(model.preprocessing.image_spec, model.dimension, embed)


def _within_memory(embed: Embed, batch_size: int) -> Embed:
    """Too little memory is a sentence."""

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


def open_network(path: Path, experiment: Experiment | None) -> tuple[ReIDNet, Experiment]:
    """The network in a checkpoint, ours or of another tool, on the CPU, and the spec that describes it.

    Args:
        experiment: The user's spec; None takes the checkpoint's own.

    Raises:
        InputError: the file is unusable, or does not fit the spec.
    """
    try:
        checkpoint = load_checkpoint(path, find_passphrase(experiment))
    except InputError:
        network = foreign_network(path, experiment) if experiment else None
        if network is None or experiment is None:
            raise
        return network, experiment
    if experiment is None:
        experiment = checkpoint_experiment(checkpoint, path)
    else:
        experiment = matching_experiment(experiment, checkpoint, path)
    return restore_network(checkpoint, experiment, path, torch.device("cpu")), experiment


def checkpoint_experiment(checkpoint: Checkpoint, path: Path) -> Experiment:
    """The spec that a checkpoint was trained with."""
    try:
        return Experiment.model_validate(checkpoint.spec)
    except ValueError:
        raise InputError(f"{path} holds a spec that this version cannot read.") from None


def matching_experiment(experiment: Experiment, checkpoint: Checkpoint, path: Path) -> Experiment:
    """The user's spec, checked against the network in a checkpoint.

    Raises:
        InputError: a key that the checkpoint fixes has another value in the spec.
    """
    trained = checkpoint_experiment(checkpoint, path)
    unlike = network_differences(experiment, trained)
    if unlike:
        raise InputError(f"{path} was trained with another spec: {'; '.join(unlike)}.")
    return experiment


def restore_network(checkpoint: Checkpoint, experiment: Experiment, path: Path, device: torch.device) -> ReIDNet:
    """The network of a checkpoint in eval mode, without its classifier.

    Raises:
        InputError: the weights do not fit the network of the spec.
    """
    network = build_network(experiment.model)
    weights = {name: tensor for name, tensor in checkpoint.model.items() if not name.startswith("classifier.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"{path} does not fit the network of the spec: {first}") from None
    return network.to(device).eval()
