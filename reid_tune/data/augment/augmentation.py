"""Augmentation and normalisation of whole batches on the model's device."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reid_tune.config.dataset import ColorJitter
from reid_tune.data.augment import cpu as on_cpu
from reid_tune.data.augment import gpu as on_device
from reid_tune.data.augment.color_jitter import jitter_colors
from reid_tune.data.augment.params import AugmentationParams, Erasing, draw_params

__all__ = ["Augmentation", "Channels", "RgbValues", "normalise"]

# 3 is RGB; 1 hands the first of three equal channels on, normalised by the first mean and deviation.
Channels = Literal[1, 3]
RgbValues = tuple[float, float, float]

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
        jitter: of the colours, see `draw_params`.
        channels: of the output.
    """

    mean: RgbValues
    std: RgbValues
    height: int
    width: int
    flip: float = 0.5
    padding: int = 10
    erase: float = 0.5
    erasing: Erasing = "mean"
    jitter: ColorJitter = ColorJitter()
    channels: Channels = 3

    def draw(self, seed: int, epoch: int, step: int, batch: int) -> AugmentationParams:
        """Decisions for the global batch of a step; `seed`, `epoch` and `step` are 0 or more."""
        return draw_params(
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

    def apply(self, images: Tensor, decisions: AugmentationParams) -> Tensor:
        """Images, uint8 [b, height, width, 3], to the model's input as of `normalise`, on their device."""
        images = images[..., : self.channels]
        place = on_device if images.is_cuda else on_cpu
        images = place.flip_and_crop(images, decisions, self.padding)
        if decisions.jitter:
            images = jitter_colors(images, decisions.jitter)
        batch = _normalise(images, self.mean, self.std)
        place.erase(batch, decisions, self.erasing)
        return batch.permute(0, 3, 1, 2)


def normalise(images: Tensor, mean: RgbValues, std: RgbValues, channels: Channels = 3) -> Tensor:
    """`(images / 255 - mean) / std`: uint8 [b, H, W, 3] to float32 [b, channels, H, W], channels last in memory."""
    return _normalise(images[..., :channels], mean, std).permute(0, 3, 1, 2)


def _normalise(images: Tensor, mean: RgbValues, std: RgbValues) -> Tensor:
    """Pixels [b, H, W, C] normalised, float32; floats are changed in place.

    One product and one sum, each rounded once, are the same on every device; on whole rows they are fastest.
    """
    width, channels = images.shape[2:]
    scale, shift = _constants(tuple(mean[:channels]), tuple(std[:channels]), width, images.device)
    rows = images.reshape(-1, width * channels).float().mul_(scale).add_(shift)
    return rows.view(images.shape)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device) -> list[Tensor]:
    """Factor and summand of the normalisation for one row of pixels, float32 [width * channels].

    They stay on the device: a copy from ordinary memory would make the host wait for the GPU in every step.
    """
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
    shift = -255 * torch.tensor(mean, dtype=torch.float64) * scale
    return [values.float().repeat(width).to(device) for values in (scale, shift)]
