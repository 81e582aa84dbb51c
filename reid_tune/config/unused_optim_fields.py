"""Fields of the optimizer and its schedule without effect."""

from collections.abc import Callable

from reid_tune.config.experiment import Experiment
from reid_tune.config.train import COSINE_SCHEDULES

__all__ = ["OPTIM_RULES", "Rule"]

# A reason, a function that returns whether the keys have an effect in an experiment, and the keys.
Rule = tuple[str, Callable[[Experiment], bool], tuple[str, ...]]


def _has_step_schedule(experiment: Experiment) -> bool:
    return experiment.train.optim.warmup_method not in COSINE_SCHEDULES


OPTIM_RULES: tuple[Rule, ...] = (
    (
        "the optimizer is not SGD",
        lambda e: e.train.optim.name == "SGD",
        ("train.optim.momentum", "train.optim.nesterov"),
    ),
    (
        "Rprop has no weight decay",
        lambda e: e.train.optim.name != "Rprop",
        ("train.optim.weight_decay", "train.optim.weight_decay_bias", "train.optim.decay_norms"),
    ),
    (
        "decay_norms is false",
        lambda e: e.train.optim.decay_norms or e.train.optim.name == "Rprop",
        ("train.optim.weight_decay_bias",),
    ),
    (
        "plateau_patience is not set",
        lambda e: e.train.optim.plateau_patience is not None,
        ("train.optim.lr_monitor",),
    ),
    (
        "plateau_patience is set",
        lambda e: e.train.optim.plateau_patience is None or not _has_step_schedule(e),
        ("train.optim.lr_steps",),
    ),
    (
        "the schedule is a cosine",
        _has_step_schedule,
        ("train.optim.warmup_iters", "train.optim.lr_steps", "train.optim.gamma", "train.optim.plateau_patience"),
    ),
    (
        "the schedule has steps",
        lambda e: not _has_step_schedule(e),
        ("train.optim.warmup_epochs", "train.optim.min_lr_factor"),
    ),
    (
        "warmup_method is not flat_cosine",
        lambda e: e.train.optim.warmup_method == "flat_cosine",
        ("train.optim.flat_fraction",),
    ),
    (
        "warmup_steps is set",
        lambda e: e.train.optim.warmup_steps is None,
        ("train.optim.warmup_iters", "train.optim.warmup_epochs"),
    ),
)
