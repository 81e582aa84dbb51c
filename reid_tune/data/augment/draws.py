"""Random parameters of blur, affine transforms, patches and RandAugment, drawn on the CPU for the global batch."""

import numpy as np

from reid_tune.config.augmentation import Affine, Blur, ErasingShape, RandAugment, RandomPatch
from reid_tune.data.augment.params import draw_boxes

__all__ = ["draw_matrices", "draw_operations", "draw_patches", "draw_sigmas", "input_maps"]

OPERATIONS = 14  # of RandAugment


def draw_sigmas(rng: np.random.Generator, batch: int, blur: Blur) -> np.ndarray:
    """Draw the standard deviation of the blur of each image, float64 [batch]; 0 for images that are not blurred."""
    selected = rng.random(batch) < blur.prob
    return np.where(selected, rng.uniform(blur.sigma / 10, blur.sigma, batch), 0.0)


def draw_matrices(rng: np.random.Generator, batch: int, height: int, width: int, affine: Affine) -> np.ndarray:
    """Draw the affine map of each image as `warp_images` reads it, float64 [batch, 2, 3]; all 0 without a transform.

    An image is sheared, scaled, rotated about its centre and then shifted.

    Args:
        rng: Random number generator.
        batch: Number of images.
        height: Image height in pixels.
        width: Image width in pixels.
        affine: Settings.
    """
    selected = rng.random(batch) < affine.prob
    angle, shear, scale, x, y = rng.uniform(-1, 1, (5, batch))
    angle, shear = np.radians(angle * affine.degrees), np.tan(np.radians(shear * affine.shear))
    cosine, sine = np.cos(angle), np.sin(angle)
    # The product [[cos, -sin], [sin, cos]] @ [[1, -shear], [0, 1]].
    linear = np.array([[cosine, -cosine * shear - sine], [sine, cosine - sine * shear]]) * (1 + scale * affine.scale)
    shift = affine.translate * np.stack([x * width, y * height], axis=1)
    return np.where(selected[:, None, None], input_maps(linear.transpose(2, 0, 1), shift), 0.0)


def input_maps(linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return the maps from output to input of transforms of (x, y), float64 [n, 2, 3].

    Args:
        linear: Linear parts, float64 [n, 2, 2].
        shift: Shifts after them in pixels, float64 [n, 2].
    """
    inverse = np.linalg.inv(linear)
    return np.concatenate([inverse, -inverse @ shift[..., None]], axis=2)


def draw_patches(
    rng: np.random.Generator, batch: int, height: int, width: int, patch: RandomPatch
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the patches of images as `paste_patches` reads them: boxes [batch, 4] and sources [batch, 3], int64.

    Arguments as in `draw_matrices`.
    """
    shape = ErasingShape(min_area=patch.min_area, max_area=patch.max_area, min_aspect=patch.min_aspect)
    boxes = draw_boxes(rng, batch, height, width, patch.prob, "noise", shape)
    source = rng.integers(0, max(batch - 1, 1), batch)
    source = (source + (source >= np.arange(batch))) % batch  # another image than the image itself
    corners = rng.integers(0, np.array([height, width]) - boxes[:, 2:], endpoint=True)
    return boxes, np.concatenate([source[:, None], corners], axis=1)


def draw_operations(rng: np.random.Generator, batch: int, settings: RandAugment) -> tuple[np.ndarray, np.ndarray]:
    """Draw the operations of RandAugment as `apply_operations` reads them, int64 and float64 [batch, num_ops]."""
    size = (batch, settings.num_ops)
    selected = rng.random(batch) < settings.prob
    operations, signs = rng.integers(0, OPERATIONS, size), rng.choice([-1.0, 1.0], size)
    return np.where(selected[:, None], operations, 0), signs * (settings.magnitude / 30)
