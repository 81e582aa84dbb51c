"""Augmentation and normalisation of whole batches on the model's device."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from reid_tune.config.dataset import ColorJitter
from reid_tune.data.augment import cpu, gpu
from reid_tune.data.augment.color_jitter import jitter_colors
from reid_tune.data.augment.params import AugmentationParams, Erasing, draw_params
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.normalisation import normalise_pixels

__all__ = ["Augmentation"]

# Keeps these draws apart from the sampler's, which has streams 0 and 1 of the same seed.
STREAM = 2


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Flip, pad with black, crop back, jitter the colours, normalise, erase one box; in this order.

    Attributes:
        image_spec: Size, channels and normalisation of the output.
        flip: Probability of the horizontal flip, 0..1.
        padding: Black border in pixels on each side.
        erase: Probability of erasing, 0..1.
        erasing: Kind of erasing: `mean` fills with the mean pixel (0 after normalisation), area 0.02..0.4 of the image,
            aspect uniform in 0.3..3.33; `noise` fills with normal noise per value, area 0.02..1/3, aspect log-uniform
            in 0.3..1/0.3.
        jitter: Colour jitter, see `draw_params`.
    """

    image_spec: ImageSpec
    flip: float = 0.5
    padding: int = 10
    erase: float = 0.5
    erasing: Erasing = "mean"
    jitter: ColorJitter = ColorJitter()

    def draw(self, seed: int, epoch: int, step: int, batch: int) -> AugmentationParams:
        """Draw the parameters of a step's global batch; `seed`, `epoch` and `step` are 0 or more."""
        return draw_params(
            np.random.default_rng((seed, STREAM, epoch, step)),
            batch,
            self.image_spec.height,
            self.image_spec.width,
            flip=self.flip,
            padding=self.padding,
            erase=self.erase,
            erasing=self.erasing,
            jitter=self.jitter,
        )

    def apply(self, images: Tensor, params: AugmentationParams) -> Tensor:
        """Return the model's input, float32 [batch, channels, H, W], on the device of the images.

        Args:
            images: Images, uint8 [batch, H, W, 3].
            params: Parameters for these images.
        """
        images = images[..., : self.image_spec.channels]
        device = gpu if images.is_cuda else cpu
        images = device.flip_and_crop(images, params, self.padding)
        if params.jitter:
            images = jitter_colors(images, params.jitter)
        batch = normalise_pixels(images, self.image_spec)
        device.erase(batch, params, self.erasing)
        return batch.permute(0, 3, 1, 2)
