"""Flip, crop and erase on a GPU: a few operations on the whole batch, which copy whole rows of pixels."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_tune.data.augment.params import AugmentationParams, Erasing, noise_bank
from reid_tune.data.transfer import to_device

__all__ = ["erase", "flip_and_crop"]


def flip_and_crop(images: Tensor, params: AugmentationParams, padding: int) -> Tensor:
    """Flip, pad with black and crop back; uint8 [b, H, W, C].

    Rows of the crops, [b * H, W * C], are copied from the padded images. The mirror images follow the originals there,
    and the rows of an image to flip are copied from its mirror image.
    """
    count, height, width, size = images.shape
    flipped = np.flatnonzero(params.flip)
    source = np.arange(count)
    source[flipped] = count + np.arange(len(flipped))
    mirrored = images.index_select(0, to_device(flipped, images.device)).flip(2)
    border = (size * padding, size * padding, padding, padding)
    padded, line = functional.pad(torch.cat([images, mirrored]).flatten(2), border), width + 2 * padding
    top = source * (height + 2 * padding) + params.crop[:, 0]
    starts = (top[:, None] + np.arange(height)) * line + params.crop[:, 1:]
    windows = padded.as_strided((padded.numel() // size - width + 1, size * width), (size, 1))
    return windows.index_select(0, to_device(starts.ravel(), images.device)).view(images.shape)


def erase(batch: Tensor, params: AugmentationParams, erasing: Erasing) -> None:
    """Fill the boxes of a normalised batch, float32 [b, H, W, C], in place; only rows of the boxes are written."""
    count, image_rows, image_columns, channels = batch.shape
    rows = batch.view(count * image_rows, -1)
    top, left, height, width = params.boxes.T[:, :, None]
    image, row = np.nonzero(_within(image_rows, top, height))
    length = image_columns * channels
    columns = to_device(_within(length, channels * left, channels * width), rows.device)
    inside = columns.index_select(0, to_device(image, rows.device))
    touched = to_device(image * image_rows + row, rows.device)
    if erasing == "mean":
        filled = rows.index_select(0, touched).masked_fill_(inside, 0.0)
    else:
        starts = to_device(params.noise[image] + row * length, rows.device)
        noise = _bank(image_rows * length, rows.device).unfold(0, length, 1)
        filled = torch.where(inside, noise.index_select(0, starts), rows.index_select(0, touched))
    rows.index_copy_(0, touched, filled)


def _within(length: int, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return which positions 0..length-1 are in start..start+size-1, bool [b, length] for columns [b, 1]."""
    positions = np.arange(length)
    return (positions >= start) & (positions < start + size)


@lru_cache(maxsize=4)
def _bank(size: int, device: torch.device) -> Tensor:
    return torch.from_numpy(noise_bank(size)).to(device)
