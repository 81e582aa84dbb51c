"""Augmentation and normalisation of whole batches on the model's device.

Both work on whole image rows, [rows, channels * width]: copying rows is several times faster than gathering pixels.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid_tune.data.decisions import NOISE_OFFSETS, Decisions, Erasing, draw_decisions
from reid_tune.data.jitter import jitter_colors
from reid_tune.spec.dataset import ColorJitter

__all__ = ["Augmentation", "Channels", "Values", "normalise"]

# 3 is RGB; 1 hands the first of three equal channels on, normalised by the first mean and deviation.
Channels = Literal[1, 3]
Values = tuple[float, float, float]

# Keeps these draws apart from the sampler's, which has streams 0 and 1 of the same seed.
STREAM = 2


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Flip, pad with black, crop back, jitter the colours, normalise, erase one box; in this order.

    Attributes:
        mean, std: of the normalisation, for pixels in 0..1.
        height, width: of the images in pixels.
        flip: probability of the horizontal flip.
        padding: pixels on each side.
        erase: probability of erasing.
        erasing: `mean` fills with the mean pixel (0 after normalisation), area 0.02..0.4 of the image, aspect uniform
            in 0.3..3.33; `noise` with normal noise per value, area 0.02..1/3, aspect log-uniform in 0.3..1/0.3.
        jitter: of the colours, see `draw_decisions`.
        channels: of the output.
    """

    mean: Values
    std: Values
    height: int
    width: int
    flip: float = 0.5
    padding: int = 10
    erase: float = 0.5
    erasing: Erasing = "mean"
    jitter: ColorJitter = ColorJitter()
    channels: Channels = 3

    def draw(self, seed: int, epoch: int, step: int, batch: int) -> Decisions:
        """Decisions for the global batch of a step; `seed`, `epoch` and `step` are 0 or more."""
        return draw_decisions(
            np.random.default_rng((seed, STREAM, epoch, step)),
            batch,
            self.height,
            self.width,
            flip=self.flip,
            padding=self.padding,
            erase=self.erase,
            erasing=self.erasing,
            jitter=self.jitter,
        )

    def apply(self, images: Tensor, decisions: Decisions) -> Tensor:
        """Images, uint8 [b, height, width, 3], to the model's input as of `normalise`, on their device."""
        images = images[..., : self.channels]
        rows = self._flip_and_crop(images, decisions)
        if decisions.jitter:
            rows = jitter_colors(rows.view(images.shape), decisions.jitter).view(rows.shape)
        rows = _normalise_rows(rows, self.mean, self.std, self.channels)
        self._erase(rows, decisions)
        return rows.view(images.shape).permute(0, 3, 1, 2)

    def _flip_and_crop(self, images: Tensor, decisions: Decisions) -> Tensor:
        """Rows of the crops, uint8 [b * height, channels * width], copied from the padded images.

        Mirror images follow the originals; an image to flip takes its rows there.
        """
        count, pad, width, size = len(images), self.padding, self.width + 2 * self.padding, self.channels
        flipped = np.flatnonzero(decisions.flip)
        source = np.arange(count)
        source[flipped] = count + np.arange(len(flipped))
        mirrored = images.index_select(0, _to(flipped, images.device)).flip(2)
        padded = functional.pad(torch.cat([images, mirrored]).flatten(2), (size * pad, size * pad, pad, pad))
        top = source * (self.height + 2 * pad) + decisions.crop[:, 0]
        starts = (top[:, None] + np.arange(self.height)) * width + decisions.crop[:, 1:]
        windows = padded.as_strided((padded.numel() // size - self.width + 1, size * self.width), (size, 1))
        return windows.index_select(0, _to(starts, images.device))

    def _erase(self, rows: Tensor, decisions: Decisions) -> None:
        """Fill the boxes in place; only rows that a box touches are read and written."""
        top, left, height, width = decisions.boxes.T[:, :, None]
        image, row = np.nonzero(_within(self.height, top, height))
        length, channels = rows.shape[1], self.channels
        columns = torch.from_numpy(_within(length, channels * left, channels * width)).to(rows.device)
        inside = columns.index_select(0, _to(image, rows.device))
        touched = _to(image * self.height + row, rows.device)
        if self.erasing == "mean":
            filled = rows.index_select(0, touched).masked_fill_(inside, 0.0)
        else:
            starts = _to(decisions.noise[image] + row * length, rows.device)
            noise = _noise_bank(self.height * length, rows.device).unfold(0, length, 1)
            filled = torch.where(inside, noise.index_select(0, starts), rows.index_select(0, touched))
        rows.index_copy_(0, touched, filled)


def normalise(images: Tensor, mean: Values, std: Values, channels: Channels = 3) -> Tensor:
    """`(images / 255 - mean) / std`: uint8 [b, H, W, 3] to float32 [b, channels, H, W], channels last in memory."""
    images = images[..., :channels]
    rows = images.reshape(-1, channels * images.shape[2])
    return _normalise_rows(rows, mean, std, channels).view(images.shape).permute(0, 3, 1, 2)


def _normalise_rows(rows: Tensor, mean: Values, std: Values, channels: Channels) -> Tensor:
    """Rows of pixels [n, channels * width], of which floats are changed in place.

    One product and one sum, each rounded once, are the same on every device.
    """
    scale = 1 / (255 * torch.tensor(std[:channels], dtype=torch.float64))
    shift = -255 * torch.tensor(mean[:channels], dtype=torch.float64) * scale
    scale, shift = (values.float().repeat(rows.shape[1] // channels).to(rows.device) for values in (scale, shift))
    return rows.float().mul_(scale).add_(shift)


def _within(length: int, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Which positions 0..length-1 lie in start..start+size-1, bool [b, length] for columns [b, 1]."""
    positions = np.arange(length)
    return (positions >= start) & (positions < start + size)


def _to(index: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(index).flatten().to(device)


@lru_cache(maxsize=4)
def _noise_bank(size: int, device: torch.device) -> Tensor:
    """Normal noise for images of `size` values at any offset, the same in all processes and on all devices."""
    noise = np.random.default_rng(0).standard_normal(NOISE_OFFSETS + size, dtype=np.float32)
    return torch.from_numpy(noise).to(device)
