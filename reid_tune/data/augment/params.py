"""Random parameters of the augmentation of each image, drawn on the CPU for the global batch."""

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from reid_tune.config.augmentation import ErasingShape
from reid_tune.config.dataset import ColorJitter

__all__ = [
    "NOISE_OFFSETS",
    "AugmentationParams",
    "Erasing",
    "JitterParams",
    "draw_boxes",
    "draw_params",
    "noise_bank",
]

Erasing = Literal["mean", "noise"]

# Number of offsets in the noise bank at which the noise of an image may start.
NOISE_OFFSETS = 1 << 20
MAX_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class JitterParams:
    """Colour jitter of B images.

    Attributes:
        selected: Whether an image is changed, bool [B].
        factors: Factors on brightness, contrast and saturation, and the shift of the hue, -0.5..0.5 as a fraction of
            the colour circle; float64 [B, 4].
        order: Columns of `factors` in the order of the operations, the same for all images, int64 [4].
    """

    selected: np.ndarray
    factors: np.ndarray
    order: np.ndarray

    def slice(self, start: int, stop: int) -> "JitterParams":
        """Return the parameters of images start..stop-1."""
        return JitterParams(self.selected[start:stop], self.factors[start:stop], self.order)


@dataclass(frozen=True, slots=True)
class AugmentationParams:
    """Augmentation of B images.

    Attributes:
        flip: Whether an image is flipped, bool [B].
        crop: Top and left of the crop in the padded image in pixels, 0..2 * padding, int64 [B, 2].
        boxes: Top, left, height and width of the erased box in pixels, int64 [B, 4]; all 0 if nothing is erased.
        noise: Offset in the noise bank, 0..NOISE_OFFSETS - 1, int64 [B].
        jitter: Colour jitter; None if its probability is 0.
        patches: Box that is replaced by one of another image, see `paste_patches`; None if its probability is 0.
        patch_sources: The other image, in the global batch, and its box, see `paste_patches`.
        operations: Operations of RandAugment, see `apply_operations`; None if its probability is 0.
        levels: Strengths of the operations, see `apply_operations`.
        more_boxes: Further erased boxes, int64 [B, n, 4]; None if there is one at most.
        matrices: Affine map of each image, see `warp_images`; None if its probability is 0.
        grey: Whether an image becomes grey, bool [B]; None if its probability is 0.
        grey_boxes: Box that becomes grey, see `make_boxes_grey`; None if its probability is 0.
        sigmas: Standard deviation of the blur, see `blur_images`; None if its probability is 0.
    """

    flip: np.ndarray
    crop: np.ndarray
    boxes: np.ndarray
    noise: np.ndarray
    jitter: JitterParams | None = None
    patches: np.ndarray | None = None
    patch_sources: np.ndarray | None = None
    operations: np.ndarray | None = None
    levels: np.ndarray | None = None
    more_boxes: np.ndarray | None = None
    matrices: np.ndarray | None = None
    grey: np.ndarray | None = None
    grey_boxes: np.ndarray | None = None
    sigmas: np.ndarray | None = None

    @property
    def patch_images(self) -> np.ndarray:
        """Images of the global batch that give a box to these images, in their order, int64 [n]."""
        if self.patches is None or self.patch_sources is None:
            return np.empty(0, np.int64)
        return self.patch_sources[self.patches[:, 2] > 0, 0]

    def slice(self, start: int, stop: int) -> "AugmentationParams":
        """Return the parameters of images start..stop-1, such as those of one worker."""
        parts: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            parts[field.name] = value[start:stop] if isinstance(value, np.ndarray) else value
        jitter = self.jitter and self.jitter.slice(start, stop)
        return AugmentationParams(**parts | {"jitter": jitter})


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
    shape: ErasingShape,
) -> AugmentationParams:
    """Draw the parameters of a batch.

    Colour jitter is drawn last, so that the other parameters do not depend on it.

    Args:
        rng: Random number generator.
        batch: Number of images.
        height: Image height in pixels.
        width: Image width in pixels.
        flip: Probability of a horizontal flip, 0..1.
        padding: Border before the crop in pixels.
        erase: Probability of erasing, 0..1.
        erasing: Kind of erasing, see `Augmentation`.
        jitter: Settings of the colour jitter.
        shape: Area and aspect of the erased box.
    """
    return AugmentationParams(
        flip=rng.random(batch) < flip,
        crop=rng.integers(0, 2 * padding, (batch, 2), endpoint=True),
        boxes=draw_boxes(rng, batch, height, width, erase, erasing, shape),
        noise=rng.integers(0, NOISE_OFFSETS, batch),
        jitter=_draw_jitter(rng, batch, jitter) if jitter.prob else None,
    )


def draw_boxes(
    rng: np.random.Generator,
    batch: int,
    height: int,
    width: int,
    probability: float,
    erasing: Erasing,
    shape: ErasingShape,
) -> np.ndarray:
    """Draw boxes for random erasing (Zhong et al. 2020): the first of up to 100 that is smaller than the image."""
    low = shape.min_aspect or 0.3
    if erasing == "mean":
        largest = shape.max_area or 0.4
        aspect = rng.uniform(low, 1 / low if shape.min_aspect else 3.33, (batch, MAX_ATTEMPTS))
    else:
        largest = shape.max_area or 1 / 3
        aspect = np.exp(rng.uniform(np.log(low), -np.log(low), (batch, MAX_ATTEMPTS)))
    area = rng.uniform(shape.min_area, largest, (batch, MAX_ATTEMPTS)) * height * width
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
        selected=rng.random(batch) < jitter.prob,
        factors=np.array([1.0, 1.0, 1.0, 0.0]) + deviations * rng.uniform(-1, 1, (batch, 4)),
        order=rng.permutation(4),
    )


def noise_bank(size: int) -> np.ndarray:
    """Return normal noise, float32 [NOISE_OFFSETS + size], the same in all processes.

    Args:
        size: Number of values of an image, which may start at any offset.
    """
    return np.random.default_rng(0).standard_normal(NOISE_OFFSETS + size, dtype=np.float32)
