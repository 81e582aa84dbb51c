"""Synthetic objectives with a known optimum: conditional keys, and learning curves that cross."""

import math
from collections.abc import Mapping
from typing import Any

from search_table import EPOCHS

__all__ = ["CONDITIONS_SPACE", "CROSSING_SPACE", "OPTIMUM", "conditions_curve", "crossing_curve"]

OPTIMUM = 0.8  # best score at the last epoch of both objectives
_NAME, _RATE, _SOFT = "train.optim.name", "train.optim.base_lr", "model.no_margin"
_DECAY, _MOMENTUM, _MARGIN = "train.optim.weight_decay", "train.optim.momentum", "train.optim.triplet_loss_margin"
_ERASING, _WARMUP, _SMOOTHING = "dataset.re_prob", "train.optim.warmup_iters", "model.label_smooth"

CONDITIONS_SPACE: dict[str, Any] = {
    _NAME: {"choice": ["Adam", "AdamW", "SGD"]},
    _RATE: [
        {"loguniform": [1e-5, 1e-1], "when": {_NAME: ["Adam", "AdamW"]}},
        {"loguniform": [1e-4, 10.0], "when": {_NAME: "SGD"}},
    ],
    _DECAY: {"loguniform": [1e-6, 1e-1], "when": {_NAME: ["AdamW", "SGD"]}},
    _MOMENTUM: {"uniform": [0.0, 0.99], "when": {_NAME: "SGD"}},
    _SOFT: {"choice": [True, False]},
    _MARGIN: {"uniform": [0.05, 1.0], "when": {_SOFT: False}},
    _WARMUP: {"int": [0, 3]},
    _ERASING: {"uniform": [0.0, 1.0]},
}
CROSSING_SPACE: dict[str, Any] = {
    _RATE: {"loguniform": [1e-5, 1e-1]},
    _DECAY: {"loguniform": [1e-6, 1e-1]},
    _ERASING: {"uniform": [0.0, 1.0]},
    _MARGIN: {"uniform": [0.05, 1.0]},
    _SMOOTHING: {"choice": [True, False]},
}


def conditions_curve(values: Mapping[str, Any]) -> list[float]:
    """Return the score by epoch where keys act only under conditions; rates far above the best one diverge.

    The optimum is SGD with rate 0.1, momentum 0.9 and weight decay 1e-3, a margin of 0.3, one epoch of warm-up and
    erasing at 0.4. AdamW has a peak of 0.77, Adam one of 0.72. SGD's best rate falls as its momentum rises.
    """
    rate, name = math.log10(values[_RATE]), values[_NAME]
    decay = math.log10(values[_DECAY])
    if name == "SGD":
        off = rate + 1 - 2 * (0.9 - values[_MOMENTUM])
        loss = 0.1 * off**2 + 0.3 * (values[_MOMENTUM] - 0.9) ** 2 + 0.03 * (decay + 3) ** 2
    elif name == "AdamW":
        off = rate + 2.5
        loss = 0.03 + 0.15 * off**2 + 0.05 * (decay + 2) ** 2
    else:
        off = rate + 2.5
        loss = 0.08 + 0.15 * off**2
    loss += 0.1 if values[_SOFT] else 0.5 * (values[_MARGIN] - 0.3) ** 2
    loss += 0.02 * abs(values[_WARMUP] - 1) + 0.4 * (values[_ERASING] - 0.4) ** 2
    scores = _curve(OPTIMUM - loss, 0.25 + 0.1 * max(-1.5, min(1.0, off)))
    return scores if off < 1.3 else scores[:1]


def crossing_curve(values: Mapping[str, Any]) -> list[float]:
    """Return the score by epoch where what is best at the end learns slowly.

    The optimum is rate 1e-4, weight decay 1e-5, erasing at 0.7, a margin of 0.7 and label smoothing. High rates and
    little erasing lead in the first epochs.
    """
    rate, decay = math.log10(values[_RATE] / 1e-4), math.log10(values[_DECAY] / 1e-5)
    erasing, margin = values[_ERASING] - 0.7, values[_MARGIN] - 0.7
    loss = 0.12 * (rate + 0.3 * decay) ** 2 + 0.03 * decay**2 + 0.6 * erasing**2 + 0.5 * margin**2
    loss += 0.0 if values[_SMOOTHING] else 0.05
    speed = 0.1 * math.exp(0.6 * max(-2.0, rate) - 1.5 * erasing - 0.5 * margin - 0.4 * values[_SMOOTHING])
    return _curve(OPTIMUM - loss, speed)


def _curve(last: float, speed: float) -> list[float]:
    """Return an exponential learning curve from 0 to the last score."""
    last = max(0.02, last)
    return [last * math.expm1(-speed * epoch) / math.expm1(-speed * EPOCHS) for epoch in range(1, EPOCHS + 1)]
