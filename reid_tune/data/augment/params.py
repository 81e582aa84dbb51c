"""What augmentation does to each image of a batch, drawn on the CPU for the global batch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reid_tune.config.dataset import ColorJitter

__all__ = ["NOISE_OFFSETS", "AugmentationParams", "Erasing", "JitterParams", "draw_params", "noise_bank"]

Erasing = Literal["mean", "noise"]

# Places in the bank of noise at which the noise of an image may begin.
NOISE_OFFSETS = 1 << 20
TRIES = 100
SMALLEST = 0.02


@dataclass(frozen=True, slots=True)
class JitterParams:
    """Colour jitter of B images.

    Attributes:
        chosen: bool [B], which images are changed at all.
        factors: float64 [B, 4]: brightness, contrast and saturation are multiplied by the first three, and the last,
            -0.5..0.5, is added to the hue as a share of the colour circle.
        order: int64 [4], places in `factors` in the order of the operations, one order for all images.
    """

    chosen: np.ndarray
    factors: np.ndarray
    order: np.ndarray

    def slice(self, start: int, stop: int) -> "JitterParams":
        """The jitter of images start..stop-1."""
        return JitterParams(self.chosen[start:stop], self.factors[start:stop], self.order)


@dataclass(frozen=True, slots=True)
class AugmentationParams:
    """Decisions for B images.

    Attributes:
        flip: bool [B].
        crop: int64 [B, 2], top and left of the crop in the padded image, 0..2 * padding.
        boxes: int64 [B, 4], top, left, height and width of the erased box; height 0 where nothing is erased.
        noise: int64 [B], place in the bank of noise, 0..NOISE_OFFSETS - 1.
        jitter: of the colours; None where its probability is 0.
    """

    flip: np.ndarray
    crop: np.ndarray
    boxes: np.ndarray
    noise: np.ndarray
    jitter: JitterParams | None = None

    def slice(self, start: int, stop: int) -> "AugmentationParams":
        """The decisions of images start..stop-1, such as one worker's."""
        own = slice(start, stop)
        jitter = self.jitter and self.jitter.slice(start, stop)
        return AugmentationParams(self.flip[own], self.crop[own], self.boxes[own], self.noise[own], jitter)


def draw_params(
    rng: np.random.Generator,
    batch: int,
    height: int,
    width: int,
    *,
    flip: float,
    padding: int,
    erase: float,
    erasing: Erasing,
    jitter: ColorJitter,
) -> AugmentationParams:
    """Draw for a batch of images of `height` x `width`; `flip` and `erase` are probabilities.

    Colour jitter is drawn last: with or without it all else is the same.
    """
    return AugmentationParams(
        flip=rng.random(batch) < flip,
        crop=rng.integers(0, 2 * padding, (batch, 2), endpoint=True),
        boxes=_draw_boxes(rng, batch, height, width, erase, erasing),
        noise=rng.integers(0, NOISE_OFFSETS, batch),
        jitter=_draw_jitter(rng, batch, jitter) if jitter.prob else None,
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


def _draw_jitter(rng: np.random.Generator, batch: int, jitter: ColorJitter) -> JitterParams:
    deviations = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    return JitterParams(
        chosen=rng.random(batch) < jitter.prob,
        factors=np.array([1.0, 1.0, 1.0, 0.0]) + deviations * rng.uniform(-1, 1, (batch, 4)),
        order=rng.permutation(4),
    )


def noise_bank(size: int) -> np.ndarray:
    """Normal noise, float32, for images of `size` values at any offset; the same in all processes."""
    return np.random.default_rng(0).standard_normal(NOISE_OFFSETS + size, dtype=np.float32)
