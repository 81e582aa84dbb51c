"""How the backbone runs: as it is, compiled (`train.compile`) or as CUDA graphs (`train.cuda_graphs`)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reid_tune.config.experiment import Experiment
from reid_tune.modeling.network import ReIDNet
from reid_tune.training.compiler import find_compiler
from reid_tune.training.distributed import world_size

__all__ = ["make_feature_function"]

# Compiling takes a minute or more. From which length of a run on it pays on a GPU is not measured: this is a guess.
_COMPILED_STEPS = 5000


def make_feature_function(network: ReIDNet, experiment: Experiment, steps: int) -> Callable[[Tensor], Tensor]:
    """The function from images to features before the neck, on the network's device.

    Args:
        steps: Steps of the whole run, by which `train.compile = auto` decides.
    """
    train, device = experiment.train, next(network.parameters()).device
    if train.cuda_graphs and device.type == "cuda" and world_size() == 1:
        return _GraphedFeatures(network)
    pays = device.type == "cuda" and steps >= _COMPILED_STEPS and find_compiler("cuda") is not None
    if train.compile is True or (train.compile == "auto" and pays):
        compiled: Callable[[Tensor], Tensor] = torch.compile(network.features, dynamic=False)
        return compiled
    return network.features


class _GraphedFeatures:
    """Features by CUDA graphs, which are recorded at the first images and take images of that shape alone.

    A small network's step is bound by the host, which launches hundreds of kernels; a graph is launched at once.
    """

    def __init__(self, network: ReIDNet) -> None:
        # The parts that `ReIDNet.features` calls: only what is recorded may have parameters here.
        self._module = nn.Sequential(network.backbone, network.pooling, network.projection)
        self._graphed: Callable[[Tensor], Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if self._graphed is None:
            self._graphed = self._record(images)
        # The next replay writes into the same memory.
        return self._graphed(images).clone()

    def _record(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """Record forward and backward; weights, running statistics and random state are left as they were."""
        buffers = list(self._module.buffers())
        before = [buffer.clone() for buffer in buffers]
        random_state = torch.cuda.get_rng_state(images.device)
        make: Any = torch.cuda.make_graphed_callables
        with torch.enable_grad(), _uncached_autocast(images.device):
            sample = (images.detach().clone(),)
            graphed: Callable[[Tensor], Tensor] = make(self._module, sample, allow_unused_input=True)
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        torch.cuda.set_rng_state(random_state, images.device)
        return graphed


def _uncached_autocast(device: torch.device) -> torch.autocast:
    """The autocast around, without its cache of cast weights, which must not outlive a recording."""
    return torch.autocast(
        device.type,
        dtype=torch.get_autocast_dtype(device.type),
        enabled=torch.is_autocast_enabled(device.type),
        cache_enabled=False,
    )
