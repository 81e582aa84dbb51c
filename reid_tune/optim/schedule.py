"""Learning rate as a formula of the epoch and the metrics so far, so that a resumed run needs no scheduler state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from reid_tune.config.train import COSINE_SCHEDULES, Optim

__all__ = ["count_plateaus", "learning_rate", "set_learning_rate"]

# An improvement is a value below this fraction of the best one, as in torch's ReduceLROnPlateau.
_IMPROVEMENT_FACTOR = 1 - 1e-4
_MONITORS = {"train_loss": "loss", "val_loss": "val_loss"}


def learning_rate(
    optim: Optim, epoch: int, num_epochs: int, target: float, plateaus: int = 0, step: int = 0, steps: int = 1
) -> float:
    """Return the learning rate of one parameter group in one step (formulas of the reference's schedules, and others).

    `linear`: with i = epoch + 1 and W = warmup_iters, target (f (1 - i/W) + i/W) while i < W, f = warmup_factor;
    `constant`: target f while i < W. Both are multiplied by gamma for each of lr_steps that is <= epoch + 1, or with
    plateau_patience for each plateau.
    `cosine`: with W = warmup_epochs, f base_lr + epoch (target - f base_lr) / W while epoch < W; then
    m + (target - m) (1 + cos(pi epoch / num_epochs)) / 2 with m = min_lr_factor base_lr.
    `flat_cosine` and `one_cycle`: with the time t = epoch + step / steps, f base_lr + p (target - f base_lr) while
    t < W, where p = t/W and for `one_cycle` (1 - cos(pi t/W)) / 2; target while t < D; then
    m + (target - m) (1 + cos(pi (t - D) / (num_epochs - D))) / 2, with D = max(W, flat_fraction num_epochs) for
    `flat_cosine` and W for `one_cycle`.
    With `warmup_steps` the warm-up counts steps in place of epochs.

    Args:
        optim: Section `train.optim` of the spec.
        epoch: Epoch, 0-based.
        num_epochs: Length of the whole schedule in epochs, even if a run is stopped earlier.
        target: Learning rate of the group after the warm-up.
        plateaus: Number of plateaus before this epoch.
        step: Step of the epoch, 0-based.
        steps: Steps per epoch.
    """
    if optim.warmup_method in COSINE_SCHEDULES:
        return _cosine(optim, epoch, num_epochs, target, step, steps)
    drops = plateaus if optim.plateau_patience is not None else sum(drop <= epoch + 1 for drop in optim.lr_steps)
    decay = optim.gamma**drops
    number, warmup = epoch + 1, optim.warmup_iters
    if optim.warmup_steps is not None:
        number, warmup = epoch * steps + step + 1, optim.warmup_steps
    if number >= warmup:
        return target * decay
    progress = number / warmup if optim.warmup_method == "linear" else 0
    return target * (optim.warmup_factor * (1 - progress) + progress) * decay


def _cosine(optim: Optim, epoch: int, num_epochs: int, target: float, step: int, steps: int) -> float:
    """Return the rate of a schedule with a cosine decay; for the arguments see `learning_rate`."""
    start, floor = optim.warmup_factor * optim.base_lr, optim.min_lr_factor * optim.base_lr
    # The reference's schedule changes the rate from epoch to epoch, the others from step to step.
    position: float = epoch if optim.warmup_method == "cosine" else epoch + step / steps
    elapsed, warmup = position, float(optim.warmup_epochs)
    if optim.warmup_steps is not None:
        elapsed, warmup = epoch + step / steps, optim.warmup_steps / steps
    if elapsed < warmup and optim.warmup_method == "one_cycle":
        return start + 0.5 * (1 - math.cos(math.pi * elapsed / warmup)) * (target - start)
    if elapsed < warmup:
        return start + elapsed * (target - start) / warmup
    decay_start = 0.0 if optim.warmup_method == "cosine" else warmup
    if optim.warmup_method == "flat_cosine":
        decay_start = max(warmup, optim.flat_fraction * num_epochs)
    if position < decay_start:
        return target
    angle = math.pi * (position - decay_start) / (num_epochs - decay_start)
    return floor + 0.5 * (target - floor) * (1 + math.cos(angle))


def count_plateaus(optim: Optim, history: Sequence[Mapping[str, Any]]) -> int:
    """Count plateaus in the metrics of the epochs so far, as torch's ReduceLROnPlateau does (mode min).

    A plateau is `lr_monitor` without improvement in more than `plateau_patience` epochs that have this metric; after
    it, counting restarts. The epochs of the warm-up do not count, unless it is in steps.
    """
    if optim.plateau_patience is None:
        return 0
    monitor = _MONITORS[optim.lr_monitor]
    best, stale_epochs, count = math.inf, 0, 0
    warmup = optim.warmup_iters if optim.warmup_steps is None else 0
    for metrics in history[max(warmup - 1, 0) :]:
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
    optimizer: torch.optim.Optimizer,
    optim: Optim,
    epoch: int,
    num_epochs: int,
    history: Sequence[Mapping[str, Any]],
    step: int = 0,
    steps: int = 1,
) -> float:
    """Set the learning rates of all groups for a step and return the largest.

    Args:
        optimizer: Optimizer of `make_optimizer`.
        optim: Section `train.optim` of the spec.
        epoch: Epoch, 0-based.
        num_epochs: Length of the whole schedule in epochs.
        history: Metrics of the epochs before.
        step: Step of the epoch, 0-based; without effect where the rate changes from epoch to epoch.
        steps: Steps per epoch.
    """
    plateaus = count_plateaus(optim, history)
    for group in optimizer.param_groups:
        rate = learning_rate(optim, epoch, num_epochs, group["initial_lr"], plateaus, step, steps)
        group["lr"] = group["lr_factor"] * rate
    return float(max(group["lr"] for group in optimizer.param_groups))
