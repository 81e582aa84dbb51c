"""Models from any file or reference: checkpoints of reid-tune or other tools, ONNX files, registered models, sweeps."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, is_checkpoint_content, load_checkpoint
from reid_tune.checkpoints.third_party_file import read_third_party_weights
from reid_tune.checkpoints.weight_search import find_weights, network_keys
from reid_tune.config.diff import network_differences
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.data.image_spec import ImageSpec
from reid_tune.deploy.onnx_embedder import describe_input, open_embedder
from reid_tune.deploy.onnx_file import SCORE_HINT
from reid_tune.deploy.onnx_input import InputRequest
from reid_tune.errors import InputError
from reid_tune.evaluation.distances import fix_cublas_workspace
from reid_tune.modeling.network import ReIDNet, build_network
from reid_tune.modeling.weights import is_optional, load_weights
from reid_tune.training.embedding import Embedder, EmbedFunction, make_embed_function
from reid_tune.training.memory import is_out_of_memory

__all__ = ["ModelFile", "checkpoint_experiment", "describe_inputs", "open_network"]

# Endings of models that only another runtime opens.
_OTHER_RUNTIMES = {
    ".engine": "TensorRT",
    ".plan": "TensorRT",
    ".trt": "TensorRT",
    ".etlt": "TAO",
    ".xml": "OpenVINO",
    ".tflite": "TensorFlow Lite",
    ".pb": "TensorFlow",
    ".mlmodel": "Core ML",
}
_SHOWN = 4  # Names of missing weights in a message.


@dataclass(frozen=True)
class ModelFile:
    """A checkpoint or an ONNX file; called with a device, it opens the model there.

    Attributes:
        path: The file.
        experiment: The user's spec.
        section: Section of the spec, evaluate or inference, whose `input` says how images for an ONNX file of another
            tool are prepared.

    Raises:
        InputError: when opened, the file is unusable or does not fit the spec.
    """

    path: Path
    experiment: Experiment
    section: str = "evaluate"

    @property
    def is_onnx(self) -> bool:
        """Whether the file is an ONNX file by its name."""
        return self.path.suffix.lower() == ".onnx"

    @property
    def input_request(self) -> InputRequest:
        """Values of the spec about the images of an ONNX file."""
        return InputRequest.from_experiment(self.experiment, self.section)

    def __call__(self, device: torch.device) -> Embedder:
        if self.experiment.train.deterministic:
            fix_cublas_workspace()
        batch_size = self.experiment.dataset.val_batch_size
        if self.is_onnx:
            threads, gpu = torch.get_num_threads(), device.index or 0
            model = open_embedder(self.path, self.input_request, threads=threads, gpu=gpu)
            if model.is_wrong_in_batches:
                print(f"note: {self.path} is run image by image: a batch of two gives another result", file=sys.stderr)
            embed = _report_out_of_memory(partial(model.embed, batch_size=batch_size), batch_size)
            return Embedder(model.image_spec, model.dimension, embed)
        if runtime := _OTHER_RUNTIMES.get(self.path.suffix.lower()):
            raise InputError(f"{self.path} is a model of {runtime}: give its ONNX file, {SCORE_HINT}.")
        network, experiment = open_network(self.path, self.experiment)
        embed = _report_out_of_memory(make_embed_function(network.to(device), experiment), batch_size)
        return Embedder(ImageSpec.from_experiment(experiment), network.dimension, embed)


def describe_inputs(models: Sequence[ModelFile]) -> Iterator[str]:
    """Yield a line for each ONNX file about the preparation of its images, and one for values without effect.

    Raises:
        InputError: an ONNX file cannot embed images.
    """
    for model in models:
        if model.is_onnx:
            yield describe_input(model.path, model.input_request)
    if models and not any(model.is_onnx for model in models) and (keys := models[0].input_request.keys):
        yield f"no effect: {', '.join(keys)} ({models[0].path} is not an ONNX file)"


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
        content = read_third_party_weights(path)
    except InputError:
        return None
    if is_checkpoint_content(content):
        return None  # a damaged one
    network = build_network(experiment.model)
    match = find_weights(content, network_keys(network))
    for remark in match.remarks:
        print(f"{path}: {remark}", file=sys.stderr)
    report = load_weights(network, match.tensors, hw_ratio=experiment.model.pretrain_hw_ratio)
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
