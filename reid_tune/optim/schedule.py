"""Learning rate by epoch, as closed formulas of the epoch and the metrics so far: a resumed run needs no state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from reid_tune.config.train import Optim

__all__ = ["learning_rate", "count_plateaus", "set_learning_rate"]

# An improvement is a value below this share of the best one, as in torch's ReduceLROnPlateau.
_IMPROVED = 1 - 1e-4
_MONITORS = {"train_loss": "loss", "val_loss": "val_loss"}


def learning_rate(optim: Optim, epoch: int, num_epochs: int, target: float, plateaus: int = 0) -> float:
    """The rate of one parameter group in one epoch (formulas of the reference's schedules).

    `linear`: with i = epoch + 1 and W = warmup_iters, target (f (1 - i/W) + i/W) while i < W, f = warmup_factor;
    `constant`: target f while i < W. Both times gamma for each of lr_steps that is <= i, or with plateau_patience for
    each plateau.
    `cosine`: with W = warmup_epochs, f base_lr + epoch (target - f base_lr) / W while epoch < W; then
    m + (target - m) (1 + cos(pi epoch / num_epochs)) / 2 with m = 0.002 base_lr.

    Args:
        epoch: 0-based.
        num_epochs: Length of the whole schedule, wherever a run is stopped.
        target: The group's rate after the warm-up.
        plateaus: How many plateaus were met before this epoch.
    """
    if optim.warmup_method == "cosine":
        return _cosine(optim, epoch, num_epochs, target)
    passed = epoch + 1
    drops = plateaus if optim.plateau_patience is not None else sum(step <= passed for step in optim.lr_steps)
    decay = optim.gamma**drops
    if passed >= optim.warmup_iters:
        return target * decay
    share = passed / optim.warmup_iters if optim.warmup_method == "linear" else 0
    return target * (optim.warmup_factor * (1 - share) + share) * decay


def _cosine(optim: Optim, epoch: int, num_epochs: int, target: float) -> float:
    start, floor = optim.warmup_factor * optim.base_lr, 0.002 * optim.base_lr
    if epoch < optim.warmup_epochs:
        return start + epoch * (target - start) / optim.warmup_epochs
    return floor + 0.5 * (target - floor) * (1 + math.cos(math.pi * epoch / num_epochs))


def count_plateaus(optim: Optim, history: Sequence[Mapping[str, Any]]) -> int:
    """Plateaus in the metrics of the epochs so far, counted as torch's ReduceLROnPlateau does (mode min).

    A plateau is met when `lr_monitor` has not improved in more than `plateau_patience` epochs that have it; counting
    begins anew behind it. The epochs of the warm-up do not count.
    """
    if optim.plateau_patience is None:
        return 0
    monitor = _MONITORS[optim.lr_monitor]
    best, bad, met = math.inf, 0, 0
    for metrics in history[max(optim.warmup_iters - 1, 0) :]:
        if monitor not in metrics:
            continue
        if metrics[monitor] < best * _IMPROVED:
            best, bad = metrics[monitor], 0
        else:
            bad += 1
        if bad > optim.plateau_patience:
            bad, met = 0, met + 1
    return met


def set_learning_rate(
    optimizer: torch.optim.Optimizer, optim: Optim, epoch: int, num_epochs: int, history: Sequence[Mapping[str, Any]]
) -> float:
    """Set all groups' rates for an epoch, given the metrics of those before it, and return the largest."""
    met = count_plateaus(optim, history)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(optim, epoch, num_epochs, group["initial_lr"], met)
    return float(max(group["lr"] for group in optimizer.param_groups))
