"""Exponential moving average of the weights of a training (`train.ema_decay`)."""

import copy

import torch
from torch import Tensor

from reid_tune.modeling.network import ReIDNet

__all__ = ["WeightAverage"]


class WeightAverage:
    """Average of a network's weights over the steps, as a network in eval mode.

    Step n, counted from 1, makes every weight and running statistic d average + (1 - d) value, with
    d = min(decay, (1 + n) / (10 + n)): the first weights are forgotten faster. The counters of batch norms are copied.

    Args:
        trained: Network that the steps update; the average begins with its weights.
        decay: Largest d, 0..1.
    """

    def __init__(self, trained: ReIDNet, decay: float) -> None:
        self.network = copy.deepcopy(trained).requires_grad_(False).eval()
        self._decay = decay
        self._averages, self._counts = _split_by_kind(self.network)
        self._values, self._new_counts = _split_by_kind(trained)

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Average the weights after a step.

        Args:
            number: Number of steps of the run so far.
        """
        decay = min(self._decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        if self._counts:
            torch._foreach_copy_(self._counts, self._new_counts)


def _split_by_kind(network: ReIDNet) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors of numbers that can be averaged, and the counters of batch norms."""
    tensors = network.state_dict().values()
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]
