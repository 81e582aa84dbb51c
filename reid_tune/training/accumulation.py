"""Gradient accumulation with the losses of the whole batch (`train.accumulate`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from reid_tune.modeling.network import ReIDNet
from reid_tune.training.distributed import average_gradients, gather_rows, rank, world_size

__all__ = ["GradientAccumulation"]


class GradientAccumulation:
    """Forward and backward pass of a worker's images in chunks, with the activations of one chunk in memory at a time.

    Losses such as the triplet loss need all features at once. Therefore the features of all chunks are computed first,
    without keeping activations. The gradient of the loss with respect to the features is then propagated through the
    backbone chunk by chunk, in a second forward pass that repeats the first (Gao et al. 2021, "Scaling Deep Contrastive
    Learning Batch Size under Memory Limited Setup"). Losses and gradients equal those of the whole batch up to
    rounding, unless a layer of the backbone mixes images or is stochastic: batch norm in training mode sees one chunk.

    Args:
        backbone: Function from images of a worker to features float32 [images, dimension].
        network: Network that the backbone belongs to.
        count: Number of chunks; must divide the number of a worker's images.
    """

    def __init__(self, backbone: Callable[[Tensor], Tensor], network: ReIDNet, count: int) -> None:
        self._backbone, self._network, self._count = backbone, network, count
        self._images: tuple[Tensor, ...] = ()
        self._random_states: list[Tensor] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features [batch, dimension] of the global batch, as a leaf of the graph, and their logits.

        Args:
            images: Images of this worker [batch / workers, C, H, W].
        """
        self._images = images.chunk(self._count)
        self._random_states = []
        # The running statistics of batch norm count each image once, in the second pass.
        buffers = list(self._network.backbone.buffers())
        saved_buffers = [buffer.clone() for buffer in buffers]
        parts = []
        with torch.no_grad():
            for chunk in self._images:
                self._random_states.append(_random_state(images.device))
                parts.append(self._backbone(chunk))
            if buffers:
                torch._foreach_copy_(buffers, saved_buffers)
            features = gather_rows(torch.cat(parts))
        features.requires_grad_()
        return features, self._network.logits(features)

    def backward(self, features: Tensor) -> None:
        """Add the gradients of the backbone's parameters.

        Args:
            features: Features that `forward` returned, with their gradient.
        """
        assert features.grad is not None
        local_gradient = features.grad.chunk(world_size())[rank()] * world_size()  # as in `gather_rows`
        final_state = _random_state(features.device)
        for chunk, state, gradient in zip(
            self._images, self._random_states, local_gradient.chunk(self._count), strict=True
        ):
            _set_random_state(state, features.device)
            chunk_features = self._backbone(chunk)
            if chunk_features.requires_grad:  # A frozen backbone without a projection has nothing to learn.
                chunk_features.backward(gradient)
        _set_random_state(final_state, features.device)
        self._images = ()
        average_gradients(self._network.parameters())


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
