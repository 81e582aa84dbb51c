"""Optimizers and their parameter groups."""

import inspect
from typing import Any

import torch
from torch import nn

from reid_tune.config.train import Optim
from reid_tune.optim.parameter_rates import decays_weights, rate_factors

__all__ = ["make_optimizer"]

# Optimizers with a fused implementation on the CPU and on a GPU.
_FUSED = ("Adam", "AdamW", "SGD")


def make_optimizer(network: nn.Module, optim: Optim, *, scaled: bool = False) -> torch.optim.Optimizer:
    """Build the optimizer of torch.optim that a spec names; each parameter group has its target rate as `initial_lr`
    and the factor of fine-tuning on every rate of the schedule as `lr_factor`.

    As in the reference, parameters whose name contains `bias` get `bias_lr_factor` and `weight_decay_bias`, and those
    of the classifier twice the learning rate with `large_fc_lr`. Except for SGD's `momentum` and `nesterov`, all other
    options are torch's defaults.

    Args:
        network: The network.
        optim: Section `train.optim` of the spec.
        scaled: Whether a gradient scaler may skip steps.

    Raises:
        InputError: `layer_decay` is below 1, and the backbone has no layer order.
    """
    optimizer_class: Any = getattr(torch.optim, optim.name)
    options = inspect.signature(optimizer_class).parameters
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    factors = rate_factors(network, optim)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate, decay = _rate_and_decay(name, optim)
            if not optim.decay_norms and not decays_weights(network, name, parameter):
                decay = 0.0
            groups.setdefault((rate, decay, factors.get(name, 1.0)), []).append(parameter)
    parameter_groups = [
        {"params": params, "lr": lr * factor, "initial_lr": lr, "lr_factor": factor}
        | ({"weight_decay": decay} if "weight_decay" in options else {})
        for (lr, decay, factor), params in groups.items()
    ]
    settings: dict[str, Any] = {"lr": optim.base_lr}
    if optim.name == "SGD":
        settings |= {"momentum": optim.momentum, "nesterov": optim.nesterov}
    if optim.name in _FUSED:
        settings["fused"] = True
    optimizer: torch.optim.Optimizer = optimizer_class(parameter_groups, **settings)
    if optim.name == "SGD" and scaled and optim.momentum:
        # The fused SGD does not write the momentum in a first step that is skipped, but uses it in the second. Starting
        # from zeros gives the same first step: the gradient.
        for parameter in network.parameters():
            if parameter.requires_grad:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _rate_and_decay(name: str, optim: Optim) -> tuple[float, float]:
    """Return learning rate and weight decay of a parameter."""
    is_bias = "bias" in name
    rate = optim.base_lr * (optim.bias_lr_factor if is_bias else 1)
    if optim.large_fc_lr and "classifier" in name:
        rate = optim.base_lr * 2
    return rate, optim.weight_decay_bias if is_bias else optim.weight_decay
