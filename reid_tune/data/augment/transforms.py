"""Patches, greyscale, local greyscale, blur and affine transforms of whole batches, on their device.

Every sum and product is rounded separately, so that the number of workers makes no difference.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_tune.data.augment.color_jitter import luma
from reid_tune.data.transfer import to_device

__all__ = ["blur_images", "change_images", "make_boxes_grey", "make_grey", "paste_patches", "warp_images"]


def make_grey(images: Tensor, selected: np.ndarray) -> Tensor:
    """Replace all channels of images by their luma.

    Args:
        images: Images [b, H, W, C], 0..255.
        selected: Images to change, bool [b].

    Returns:
        float32 [b, H, W, C]; a float32 input is changed in place.
    """
    return change_images(images, selected, lambda planes: luma(planes).expand_as(planes))


def make_boxes_grey(images: Tensor, boxes: np.ndarray) -> Tensor:
    """Replace all channels within a box of each image by their luma.

    Args:
        images: Images, see `make_grey`.
        boxes: Top, left, height and width in pixels, int64 [b, 4]; all 0 for images that do not change.
    """
    selected = boxes[:, 2] > 0

    def change(planes: Tensor) -> Tensor:
        box = to_device(boxes[selected].T.copy(), planes.device)
        return torch.where(_inside(box, *planes.shape[2:])[:, None], luma(planes), planes)

    return change_images(images, selected, change)


def paste_patches(images: Tensor, origins: Tensor, boxes: np.ndarray, sources: np.ndarray) -> Tensor:
    """Replace a box of each image by a box of another image.

    Args:
        images: Images, uint8 [b, H, W, C]; changed in place.
        origins: Other image of each image that changes, uint8 [n, H, W, C].
        boxes: Boxes to replace, see `make_boxes_grey`.
        sources: Number of the other image, and top and left of its box, int64 [b, 3]; the number is not read.
    """
    selected = np.flatnonzero(boxes[:, 2])
    if not len(selected):
        return images
    height, width, channels = images.shape[1:]
    values = np.concatenate([boxes[selected], sources[selected, 1:]], axis=1)
    numbers, box = to_device(selected, images.device), to_device(values.T.copy(), images.device)
    down, right = (box[4:] - box[:2])[..., None, None]
    row = (torch.arange(height, device=images.device)[:, None] + down).clamp_(0, height - 1)
    column = (torch.arange(width, device=images.device) + right).clamp_(0, width - 1)
    start = torch.arange(0, len(selected) * height * width, height * width, device=images.device)[:, None, None]
    pixels = origins.reshape(-1, channels).index_select(0, (start + row * width + column).ravel())
    inside = _inside(box[:4], height, width)[..., None]
    pasted = torch.where(inside, pixels.view(len(selected), height, width, channels), images.index_select(0, numbers))
    return images.index_copy_(0, numbers, pasted)


def blur_images(images: Tensor, sigmas: np.ndarray, largest: float) -> Tensor:
    """Blur images with a Gaussian kernel; the border is mirrored.

    Args:
        images: Images, see `make_grey`.
        sigmas: Standard deviation in pixels, float64 [b]; 0 for images that do not change.
        largest: Largest standard deviation, three of which are the radius of all kernels.
    """
    radius = min(math.ceil(3 * largest), *(length - 1 for length in images.shape[1:3]))
    selected = sigmas > 0
    kernels = np.exp(-0.5 * (np.arange(radius + 1) / sigmas[selected, None]) ** 2)
    kernels /= 2 * kernels.sum(1, keepdims=True) - kernels[:, :1]

    def change(planes: Tensor) -> Tensor:
        weights = to_device(kernels.T.astype(np.float32).copy(), planes.device)[..., None, None, None]
        for dimension in (2, 3):
            length = planes.shape[dimension]
            padding = (0, 0, radius, radius) if dimension == 2 else (radius, radius, 0, 0)
            padded = functional.pad(planes, padding, mode="reflect")
            planes = planes * weights[0]
            for shift in range(1, radius + 1):
                pair = padded.narrow(dimension, radius - shift, length) + padded.narrow(
                    dimension, radius + shift, length
                )
                planes.add_(pair.mul_(weights[shift]))
        return planes

    return change_images(images, selected, change)


def warp_images(images: Tensor, matrices: np.ndarray) -> Tensor:
    """Transform images by bilinear interpolation; what comes from outside is black.

    Args:
        images: Images, see `make_grey`.
        matrices: For each image the map from output to input, in pixels from the centre (x, y, 1), float64 [b, 2, 3];
            all 0 for images that do not change.
    """
    selected = np.asarray(matrices.any((1, 2)))

    def change(planes: Tensor) -> Tensor:
        height, width = planes.shape[2:]
        # grid_sample counts in halves of the image.
        scaled = matrices[selected] * (2 / np.array([width, height]))[:, None]
        rows = to_device(scaled.astype(np.float32), planes.device)[:, None, None]
        x = torch.arange(width, device=planes.device)[:, None] - (width - 1) / 2
        y = torch.arange(height, device=planes.device)[:, None, None] - (height - 1) / 2
        grid = (x * rows[..., 0]).add(y * rows[..., 1]).add_(rows[..., 2])
        return functional.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    return change_images(images, selected, change)


def _inside(box: Tensor, height: int, width: int) -> Tensor:
    """Return which pixels are in a box: bool [n, height, width] for top, left, height and width, int64 [4, n]."""
    top, left, rows, columns = box[..., None, None]
    row, column = torch.arange(height, device=box.device)[:, None], torch.arange(width, device=box.device)
    return (row >= top) & (row < top + rows) & (column >= left) & (column < left + columns)


def change_images(images: Tensor, selected: np.ndarray, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function to the selected images as planes, float32 [n, C, H, W]."""
    changed = images.float()
    if not selected.any():
        return changed
    index = to_device(np.flatnonzero(selected), images.device)
    planes = changed.index_select(0, index).permute(0, 3, 1, 2).contiguous()
    return changed.index_copy_(0, index, change(planes).permute(0, 2, 3, 1))
