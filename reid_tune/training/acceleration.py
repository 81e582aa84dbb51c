"""Execution of the backbone: eager, compiled (`train.compile`) or with CUDA graphs (`train.cuda_graphs`)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reid_tune.config.experiment import Experiment
from reid_tune.modeling.network import ReIDNet
from reid_tune.training.compiler import find_compiler
from reid_tune.training.distributed import world_size

__all__ = ["make_feature_function"]

# Compiling takes a minute or more. The number of steps from which that pays on a GPU is a guess; it is not measured.
_COMPILED_STEPS = 5000


def make_feature_function(network: ReIDNet, experiment: Experiment, steps: int) -> Callable[[Tensor], Tensor]:
    """Return the function from images to features before the neck, on the network's device.

    Args:
        network: Network on its device.
        experiment: The spec.
        steps: Number of steps of the whole run, which decides for `train.compile = auto`.
    """
    train, device = experiment.train, next(network.parameters()).device
    if train.cuda_graphs and device.type == "cuda" and world_size() == 1:
        return _GraphedFeatures(network)
    is_worthwhile = device.type == "cuda" and steps >= _COMPILED_STEPS and find_compiler("cuda") is not None
    if train.compile is True or (train.compile == "auto" and is_worthwhile):
        compiled: Callable[[Tensor], Tensor] = torch.compile(network.features, dynamic=False)
        return compiled
    return network.features


class _GraphedFeatures:
    """Feature function with CUDA graphs, recorded at the first call; later images must have the same shape.

    The step of a small network is limited by the host, which launches hundreds of kernels. A graph is one launch.
    """

    def __init__(self, network: ReIDNet) -> None:
        # The parts that `ReIDNet.features` calls. All parameters of this module must take part in the recording.
        self._module = nn.Sequential(network.backbone, network.pooling, network.projection)
        self._graphed: Callable[[Tensor], Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if self._graphed is None:
            self._graphed = self._record(images)
        # The next replay writes into the same memory.
        return self._graphed(images).clone()

    def _record(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """Record the forward and backward pass; weights, running statistics and random state stay unchanged."""
        buffers = list(self._module.buffers())
        saved_buffers = [buffer.clone() for buffer in buffers]
        random_state = torch.cuda.get_rng_state(images.device)
        make_graphed_callables: Any = torch.cuda.make_graphed_callables
        with torch.enable_grad(), _uncached_autocast(images.device):
            sample = (images.detach().clone(),)
            graphed: Callable[[Tensor], Tensor] = make_graphed_callables(self._module, sample, allow_unused_input=True)
        for buffer, value in zip(buffers, saved_buffers, strict=True):
            buffer.copy_(value)
        torch.cuda.set_rng_state(random_state, images.device)
        return graphed


def _uncached_autocast(device: torch.device) -> torch.autocast:
    """Return the enclosing autocast without its cache of cast weights, which must not outlive a recording."""
    return torch.autocast(
        device.type,
        dtype=torch.get_autocast_dtype(device.type),
        enabled=torch.is_autocast_enabled(device.type),
        cache_enabled=False,
    )
