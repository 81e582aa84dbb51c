"""Optimizers and their parameter groups."""

import torch
from torch import nn

from reid_tune.spec.train import Optim

__all__ = ["make_optimizer"]


def make_optimizer(network: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """The optimizer of a spec; each group has its own target rate as `initial_lr`.

    Parameters whose name contains `bias` get `bias_lr_factor` and `weight_decay_bias`, those of the classifier twice
    the rate with `large_fc_lr`, as the reference groups them.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_settings(name, optim), []).append(parameter)
    options = [
        {"params": params, "lr": lr, "initial_lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()
    ]
    if optim.name == "SGD":
        return torch.optim.SGD(options, lr=optim.base_lr, momentum=optim.momentum, fused=True)
    kind: type[torch.optim.Optimizer] = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[optim.name]
    return kind(options, lr=optim.base_lr, fused=True)  # type: ignore[call-arg]


def _settings(name: str, optim: Optim) -> tuple[float, float]:
    bias = "bias" in name
    rate = optim.base_lr * (optim.bias_lr_factor if bias else 1)
    if optim.large_fc_lr and "classifier" in name:
        rate = optim.base_lr * 2
    return rate, optim.weight_decay_bias if bias else optim.weight_decay
