"""Flip, crop and erase on the CPU: rectangles are copied image by image, which is cache-friendly."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reid_tune.data.augment.params import AugmentationParams, Erasing, noise_bank

__all__ = ["erase", "flip_and_crop"]


def flip_and_crop(images: Tensor, params: AugmentationParams, padding: int) -> Tensor:
    """Flip, pad with black and crop back; uint8 [b, H, W, C], the input is not changed."""
    height, width = images.shape[1:3]
    cropped = np.zeros(images.shape, np.uint8)
    for number, (top, left) in enumerate((params.crop - padding).tolist()):
        # torch mirrors pixels with vector instructions, numpy one by one.
        image = images[number].flip(1) if params.flip[number] else images[number]
        rows, columns = _overlap(height, top), _overlap(width, left)
        cropped[number, rows[0], columns[0]] = image.numpy()[rows[1], columns[1]]
    return torch.from_numpy(cropped)


def erase(batch: Tensor, params: AugmentationParams, erasing: Erasing) -> None:
    """Fill the boxes of a normalised batch, float32 [b, H, W, C], in place."""
    pixels = batch.numpy()
    size = pixels[0].size
    for number, (top, left, height, width) in enumerate(params.boxes.tolist()):
        box = slice(top, top + height), slice(left, left + width)
        if erasing == "mean":
            pixels[number][box] = 0.0
        elif height:
            start = params.noise[number]
            pixels[number][box] = _bank(size)[start : start + size].reshape(pixels[0].shape)[box]


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    """Return the overlap of an image and a shifted window, in coordinates of the window and of the image."""
    return slice(max(0, -shift), length - max(0, shift)), slice(max(0, shift), length + min(0, shift))


@lru_cache(maxsize=4)
def _bank(size: int) -> np.ndarray:
    return noise_bank(size)
