"""What augmentation does to each image of a batch, drawn on the CPU for the global batch."""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

__all__ = ["NOISE_OFFSETS", "Decisions", "Erasing", "draw_decisions"]

Erasing = Literal["mean", "noise"]

# Places in the bank of noise at which the noise of an image may begin.
NOISE_OFFSETS = 1 << 20
TRIES = 100
SMALLEST = 0.02


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions for B images.

    Attributes:
        flip: bool [B].
        crop: int64 [B, 2], top and left of the crop in the padded image, 0..2 * padding.
        boxes: int64 [B, 4], top, left, height and width of the erased box; height 0 where nothing is erased.
        noise: int64 [B], place in the bank of noise, 0..NOISE_OFFSETS - 1.
    """

    flip: np.ndarray
    crop: np.ndarray
    boxes: np.ndarray
    noise: np.ndarray

    def slice(self, start: int, stop: int) -> "Decisions":
        """The decisions of images start..stop-1, such as one worker's."""
        return Decisions(*(getattr(self, field.name)[start:stop] for field in fields(self)))


def draw_decisions(
    rng: np.random.Generator,
    batch: int,
    height: int,
    width: int,
    *,
    flip: float,
    padding: int,
    erase: float,
    erasing: Erasing,
) -> Decisions:
    """Draw for a batch of images of `height` x `width`; `flip` and `erase` are probabilities."""
    return Decisions(
        flip=rng.random(batch) < flip,
        crop=rng.integers(0, 2 * padding, (batch, 2), endpoint=True),
        boxes=_draw_boxes(rng, batch, height, width, erase, erasing),
        noise=rng.integers(0, NOISE_OFFSETS, batch),
    )


def _draw_boxes(
    rng: np.random.Generator, batch: int, height: int, width: int, probability: float, erasing: Erasing
) -> np.ndarray:
    """Random erasing (Zhong et al. 2020): the first of up to 100 boxes that is lower and narrower than the image."""
    if erasing == "mean":
        largest, aspect = 0.4, rng.uniform(0.3, 3.33, (batch, TRIES))
    else:
        largest, aspect = 1 / 3, np.exp(rng.uniform(np.log(0.3), -np.log(0.3), (batch, TRIES)))
    area = rng.uniform(SMALLEST, largest, (batch, TRIES)) * height * width
    sizes = np.rint(np.sqrt([area * aspect, area / aspect])).astype(np.int64)
    limits = np.array([height, width])
    fits = np.all(sizes < limits[:, None, None], axis=0)
    sizes = sizes[:, np.arange(batch), fits.argmax(1)].T
    erased = fits.any(1) & (rng.random(batch) < probability)
    corners = rng.integers(0, np.maximum(limits - sizes, 0), endpoint=True)
    return np.where(erased[:, None], np.concatenate([corners, sizes], axis=1), 0)
