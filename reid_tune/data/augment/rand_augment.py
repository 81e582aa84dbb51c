"""RandAugment (Cubuk et al. 2020) of whole batches: the operations and their strengths are those of torchvision.

Unlike torchvision's, shears keep the centre of the image, and rotations, shears and shifts interpolate bilinearly.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from reid_tune.data.augment.color_jitter import adjust_brightness, adjust_contrast, adjust_saturation, blend
from reid_tune.data.augment.draws import input_maps
from reid_tune.data.augment.transforms import change_images, warp_images
from reid_tune.data.transfer import to_device

__all__ = ["OPERATIONS", "apply_operations"]

# In the order of their numbers.
OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)


def apply_operations(images: Tensor, operations: np.ndarray, levels: np.ndarray) -> Tensor:
    """Apply operations to images one after another.

    Args:
        images: Images [b, H, W, C], 0..255.
        operations: Numbers of the operations of each image, int64 [b, n].
        levels: Their strengths, float64 -1..1 [b, n].

    Returns:
        float32 [b, H, W, C]; a float32 input is changed in place.
    """
    for numbers, level in zip(operations.T, levels.T, strict=True):
        images = warp_images(images, _matrices(numbers, level, *images.shape[1:3]))
        for name, (function, parameter) in _COLOURS.items():
            selected = numbers == OPERATIONS.index(name)
            values = parameter(level[selected]).astype(np.float32)
            images = change_images(images, selected, partial(_with_parameter, function, values))
    return images


def _with_parameter(function: Callable[[Tensor, Tensor], Tensor], values: np.ndarray, planes: Tensor) -> Tensor:
    """Apply an operation to planes [n, C, H, W] with a value for each image, float32 [n]."""
    return function(planes, to_device(values, planes.device)[:, None, None, None])


def _matrices(numbers: np.ndarray, level: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the maps for `warp_images` of one operation per image; all 0 for operations on colours."""
    amount = {name: np.where(numbers == OPERATIONS.index(name), level, 0.0) for name in OPERATIONS[1:6]}
    angle = np.radians(30 * amount["rotate"])
    cosine, sine = np.cos(angle), np.sin(angle)
    linear = np.array([[cosine, 0.3 * amount["shear_x"] - sine], [0.3 * amount["shear_y"] + sine, cosine]])
    largest = 150 / 331 * np.array([width, height])
    shift = np.stack([amount["translate_x"], amount["translate_y"]], axis=1) * largest
    moves = (numbers >= 1) & (numbers <= 5)
    return np.where(moves[:, None, None], input_maps(linear.transpose(2, 0, 1), shift), 0.0)


def _sharpness(planes: Tensor, factor: Tensor) -> Tensor:
    height, width = planes.shape[2:]
    if min(height, width) < 3:
        return planes
    columns = planes[..., :-2] + planes[..., 1:-1] + planes[..., 2:]
    smooth = planes.clone()  # the border stays
    inner = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:] + 4 * planes[:, :, 1:-1, 1:-1]
    smooth[:, :, 1:-1, 1:-1] = inner / 13
    return blend(planes, smooth, factor)


def _posterize(planes: Tensor, step: Tensor) -> Tensor:
    return planes.div(step).floor_().mul_(step)


def _solarize(planes: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(planes >= threshold, 255 - planes, planes)


def _autocontrast(planes: Tensor, _: Tensor) -> Tensor:
    low, high = planes.amin((2, 3), keepdim=True), planes.amax((2, 3), keepdim=True)
    scale = torch.where(high > low, 255 / (high - low), 1.0)
    return planes.sub(torch.where(high > low, low, 0.0)).mul_(scale).clamp_(0, 255)


def _equalize(planes: Tensor, _: Tensor) -> Tensor:
    """Spread the histogram of each plane as PIL does, in integers."""
    values = planes.round().clamp_(0, 255).long().flatten(0, 1).flatten(1)
    plane = torch.arange(0, 256 * len(values), 256, device=planes.device)[:, None]
    index = (values + plane).ravel()
    counts = torch.zeros(256 * len(values), dtype=torch.int64, device=planes.device)
    counts = counts.scatter_add_(0, index, torch.ones_like(index)).view(-1, 256)
    below = counts.cumsum(1) - counts
    last = torch.where(below + counts == values.shape[1], counts, 0).amax(1, keepdim=True)  # of the largest value
    step = (values.shape[1] - last) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=planes.device))
    return table.ravel().index_select(0, index).view(planes.shape).float()


def _factor(level: np.ndarray) -> np.ndarray:
    return 1 + 0.9 * level


# Each with a function from the level to the parameter.
_COLOURS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[np.ndarray], np.ndarray]]] = {
    "brightness": (adjust_brightness, _factor),
    "saturation": (adjust_saturation, _factor),
    "contrast": (adjust_contrast, _factor),
    "sharpness": (_sharpness, _factor),
    "posterize": (_posterize, lambda level: 2 ** np.round(4 * np.abs(level))),
    "solarize": (_solarize, lambda level: 255 * (1 - np.abs(level))),
    "autocontrast": (_autocontrast, np.zeros_like),
    "equalize": (_equalize, np.zeros_like),
}
