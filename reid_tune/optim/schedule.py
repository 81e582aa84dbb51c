"""Learning rate by epoch, as closed formulas: a resumed run needs no state."""

import math

import torch

from reid_tune.spec.train import Optim

__all__ = ["learning_rate", "set_learning_rate"]


def learning_rate(optim: Optim, epoch: int, num_epochs: int, target: float) -> float:
    """The rate of one parameter group in one epoch (formulas of the reference's two schedules).

    `linear`: with i = epoch + 1 and W = warmup_iters, target (f (1 - i/W) + i/W) while i < W, f = warmup_factor;
    times gamma for each of lr_steps that is <= i.
    `cosine`: with W = warmup_epochs, f base_lr + epoch (target - f base_lr) / W while epoch < W; then
    m + (target - m) (1 + cos(pi epoch / num_epochs)) / 2 with m = 0.002 base_lr.

    Args:
        epoch: 0-based.
        num_epochs: Length of the whole schedule, wherever a run is stopped.
        target: The group's rate after the warm-up.
    """
    if optim.warmup_method == "cosine":
        return _cosine(optim, epoch, num_epochs, target)
    passed = epoch + 1
    decay = optim.gamma ** sum(step <= passed for step in optim.lr_steps)
    if passed >= optim.warmup_iters:
        return target * decay
    share = passed / optim.warmup_iters
    return target * (optim.warmup_factor * (1 - share) + share) * decay


def _cosine(optim: Optim, epoch: int, num_epochs: int, target: float) -> float:
    start, floor = optim.warmup_factor * optim.base_lr, 0.002 * optim.base_lr
    if epoch < optim.warmup_epochs:
        return start + epoch * (target - start) / optim.warmup_epochs
    return floor + 0.5 * (target - floor) * (1 + math.cos(math.pi * epoch / num_epochs))


def set_learning_rate(optimizer: torch.optim.Optimizer, optim: Optim, epoch: int, num_epochs: int) -> float:
    """Set all groups' rates for an epoch and return the largest."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(optim, epoch, num_epochs, group["initial_lr"])
    return float(max(group["lr"] for group in optimizer.param_groups))
