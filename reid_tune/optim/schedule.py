"""Learning rate as a formula of the epoch and the metrics so far, so that a resumed run needs no scheduler state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from reid_tune.config.train import Optim

__all__ = ["count_plateaus", "learning_rate", "set_learning_rate"]

# An improvement is a value below this fraction of the best one, as in torch's ReduceLROnPlateau.
_IMPROVEMENT_FACTOR = 1 - 1e-4
_MONITORS = {"train_loss": "loss", "val_loss": "val_loss"}


def learning_rate(optim: Optim, epoch: int, num_epochs: int, target: float, plateaus: int = 0) -> float:
    """Return the learning rate of one parameter group in one epoch (formulas of the reference's schedules).

    `linear`: with i = epoch + 1 and W = warmup_iters, target (f (1 - i/W) + i/W) while i < W, f = warmup_factor;
    `constant`: target f while i < W. Both are multiplied by gamma for each of lr_steps that is <= i, or with
    plateau_patience for each plateau.
    `cosine`: with W = warmup_epochs, f base_lr + epoch (target - f base_lr) / W while epoch < W; then
    m + (target - m) (1 + cos(pi epoch / num_epochs)) / 2 with m = 0.002 base_lr.

    Args:
        optim: Section `train.optim` of the spec.
        epoch: Epoch, 0-based.
        num_epochs: Length of the whole schedule in epochs, even if a run is stopped earlier.
        target: Learning rate of the group after the warm-up.
        plateaus: Number of plateaus before this epoch.
    """
    if optim.warmup_method == "cosine":
        return _cosine(optim, epoch, num_epochs, target)
    number = epoch + 1
    drops = plateaus if optim.plateau_patience is not None else sum(step <= number for step in optim.lr_steps)
    decay = optim.gamma**drops
    if number >= optim.warmup_iters:
        return target * decay
    progress = number / optim.warmup_iters if optim.warmup_method == "linear" else 0
    return target * (optim.warmup_factor * (1 - progress) + progress) * decay


def _cosine(optim: Optim, epoch: int, num_epochs: int, target: float) -> float:
    start, floor = optim.warmup_factor * optim.base_lr, 0.002 * optim.base_lr
    if epoch < optim.warmup_epochs:
        return start + epoch * (target - start) / optim.warmup_epochs
    return floor + 0.5 * (target - floor) * (1 + math.cos(math.pi * epoch / num_epochs))


def count_plateaus(optim: Optim, history: Sequence[Mapping[str, Any]]) -> int:
    """Count plateaus in the metrics of the epochs so far, as torch's ReduceLROnPlateau does (mode min).

    A plateau is `lr_monitor` without improvement in more than `plateau_patience` epochs that have this metric; after
    it, counting restarts. The epochs of the warm-up do not count.
    """
    if optim.plateau_patience is None:
        return 0
    monitor = _MONITORS[optim.lr_monitor]
    best, stale_epochs, count = math.inf, 0, 0
    for metrics in history[max(optim.warmup_iters - 1, 0) :]:
        if monitor not in metrics:
            continue
        if metrics[monitor] < best * _IMPROVEMENT_FACTOR:
            best, stale_epochs = metrics[monitor], 0
        else:
            stale_epochs += 1
        if stale_epochs > optim.plateau_patience:
            stale_epochs, count = 0, count + 1
    return count


def set_learning_rate(
    optimizer: torch.optim.Optimizer, optim: Optim, epoch: int, num_epochs: int, history: Sequence[Mapping[str, Any]]
) -> float:
    """Set the learning rates of all groups for an epoch and return the largest.

    Args:
        optimizer: Optimizer of `make_optimizer`.
        optim: Section `train.optim` of the spec.
        epoch: Epoch, 0-based.
        num_epochs: Length of the whole schedule in epochs.
        history: Metrics of the epochs before.
    """
    plateaus = count_plateaus(optim, history)
    for group in optimizer.param_groups:
        rate = learning_rate(optim, epoch, num_epochs, group["initial_lr"], plateaus)
        group["lr"] = group["lr_factor"] * rate
    return float(max(group["lr"] for group in optimizer.param_groups))
