"""Fields of augmentations that are off."""

from collections.abc import Callable

from reid_tune.config.dataset import Dataset
from reid_tune.config.experiment import Experiment
from reid_tune.config.unused_optim_fields import Rule

__all__ = ["AUGMENTATION_RULES"]


def _has_probability(section: str) -> Callable[[Experiment], bool]:
    return lambda experiment: experiment.value(f"dataset.{section}.prob") > 0


AUGMENTATION_RULES: tuple[Rule, ...] = (
    *(
        (
            f"{name}.prob is 0",
            _has_probability(name),
            tuple(f"dataset.{name}.{field}" for field in type(section).model_fields if field != "prob"),
        )
        for name in ("color_jitter", "random_patch", "affine", "rand_augment", "blur")
        for section in [getattr(Dataset(), name)]
    ),
    (
        "re_prob and local_grey_prob are 0",
        lambda e: e.dataset.re_prob > 0 or e.dataset.local_grey_prob > 0,
        tuple(f"dataset.erasing.{name}" for name in ("min_area", "max_area", "min_aspect")),
    ),
    ("re_prob is 0", lambda e: e.dataset.re_prob > 0, ("dataset.erasing.count",)),
)
