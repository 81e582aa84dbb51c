"""Optimizers and their parameter groups."""

import inspect
from typing import Any

import torch
from torch import nn

from reid_tune.config.train import Optim

__all__ = ["make_optimizer"]

# Those whose fused form exists on the CPU and on a GPU.
_FUSED = ("Adam", "AdamW", "SGD")


def make_optimizer(network: nn.Module, optim: Optim, *, scaled: bool = False) -> torch.optim.Optimizer:
    """The class of torch.optim that a spec names; each group has its own target rate as `initial_lr`.

    Parameters whose name contains `bias` get `bias_lr_factor` and `weight_decay_bias`, those of the classifier twice
    the rate with `large_fc_lr`, as the reference groups them. All else is as torch has it, but SGD's `momentum`.

    Args:
        scaled: Whether a gradient scaler may skip steps.
    """
    kind: Any = getattr(torch.optim, optim.name)
    takes = inspect.signature(kind).parameters
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_settings(name, optim), []).append(parameter)
    options = [
        {"params": params, "lr": lr, "initial_lr": lr} | ({"weight_decay": decay} if "weight_decay" in takes else {})
        for (lr, decay), params in groups.items()
    ]
    settings: dict[str, Any] = {"lr": optim.base_lr}
    if optim.name == "SGD":
        settings["momentum"] = optim.momentum
    if optim.name in _FUSED:
        settings["fused"] = True
    optimizer: torch.optim.Optimizer = kind(options, **settings)
    if optim.name == "SGD" and scaled and optim.momentum:
        # The fused SGD leaves the momentum unwritten in a first step that is skipped, and uses it in the second. From
        # zeros the first step gives what it gives without: the gradient.
        for parameter in network.parameters():
            if parameter.requires_grad:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _settings(name: str, optim: Optim) -> tuple[float, float]:
    bias = "bias" in name
    rate = optim.base_lr * (optim.bias_lr_factor if bias else 1)
    if optim.large_fc_lr and "classifier" in name:
        rate = optim.base_lr * 2
    return rate, optim.weight_decay_bias if bias else optim.weight_decay
