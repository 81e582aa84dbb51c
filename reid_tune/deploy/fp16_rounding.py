"""What half precision does to a network, whoever computes it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reid_tune.modeling.network import ReIDNet

__all__ = ["round_to_fp16"]


def round_to_fp16(network: ReIDNet) -> Callable[[Tensor], Tensor]:
    """The network with each weight and result rounded to half precision, as a function of images [batch, C, H, W].

    This is what a right program may differ by. Values above 65,504 become infinite. Those inside one function of torch,
    such as an attention, are not rounded.
    """
    twin = copy.deepcopy(network).half().float()

    def embed(images: Tensor) -> Tensor:
        with _Rounding():
            return twin(images.half().float())

    return embed


class _Rounding(TorchFunctionMode):
    """Rounds what every function of torch gives."""

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        return found.half().float() if isinstance(found, Tensor) and found.dtype == torch.float32 else found
