"""Augmentation and normalisation of whole batches on the model's device."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from reid_tune.config.augmentation import Affine, Blur, ErasingShape, RandAugment, RandomPatch
from reid_tune.config.dataset import ColorJitter
from reid_tune.data.augment import cpu, gpu
from reid_tune.data.augment.color_jitter import jitter_colors
from reid_tune.data.augment.draws import draw_matrices, draw_operations, draw_patches, draw_sigmas
from reid_tune.data.augment.params import AugmentationParams, Erasing, draw_boxes, draw_params
from reid_tune.data.augment.rand_augment import apply_operations
from reid_tune.data.augment.transforms import blur_images, make_boxes_grey, make_grey, paste_patches, warp_images
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.normalisation import normalise_pixels

__all__ = ["Augmentation"]

# Keeps these draws apart from the sampler's, which has streams 0 and 1 of the same seed.
STREAM = 2
# Streams of the transforms that came later, one for each, so that none changes the draws of another.
BOXES, AFFINE, GREY, LOCAL_GREY, BLUR, PATCHES, OPERATIONS = range(3, 10)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Transforms of a batch and the normalisation.

    Their order: flip, crop from the image padded with black, patch, affine transform, RandAugment, colour jitter,
    greyscale, local greyscale, blur, normalisation, erasing.

    Attributes:
        image_spec: Size, channels and normalisation of the output.
        flip: Probability of the horizontal flip, 0..1.
        padding: Black border in pixels on each side.
        erase: Probability of erasing, 0..1.
        erasing: Kind of erasing: `mean` fills with the mean pixel (0 after normalisation), area 0.02..0.4 of the image,
            aspect uniform in 0.3..3.33; `noise` fills with normal noise per value, area 0.02..1/3, aspect log-uniform
            in 0.3..1/0.3.
        jitter: Colour jitter, see `draw_params`.
        shape: Area, aspect and number of the erased boxes, where they differ from those of `erasing`.
        patch: Boxes of other images of the batch.
        affine: Affine transform.
        rand_augment: RandAugment.
        grey: Probability of a greyscale image, 0..1.
        local_grey: Probability of a greyscale box with the area and aspect of an erased one (Gong et al. 2021), 0..1.
        blur: Gaussian blur.
    """

    image_spec: ImageSpec
    flip: float = 0.5
    padding: int = 10
    erase: float = 0.5
    erasing: Erasing = "mean"
    jitter: ColorJitter = ColorJitter()
    shape: ErasingShape = ErasingShape()
    patch: RandomPatch = RandomPatch()
    affine: Affine = Affine()
    rand_augment: RandAugment = RandAugment()
    grey: float = 0.0
    local_grey: float = 0.0
    blur: Blur = Blur()

    def draw(self, seed: int, epoch: int, step: int, batch: int) -> AugmentationParams:
        """Draw the parameters of a step's global batch; `seed`, `epoch` and `step` are 0 or more."""
        height, width = self.image_spec.height, self.image_spec.width

        def generator(stream: int) -> np.random.Generator:
            return np.random.default_rng((seed, stream, epoch, step))

        params = draw_params(
            generator(STREAM),
            batch,
            height,
            width,
            flip=self.flip,
            padding=self.padding,
            erase=self.erase,
            erasing=self.erasing,
            jitter=self.jitter,
            shape=self.shape,
        )

        def boxes(stream: int, count: int, probability: float) -> np.ndarray:
            return draw_boxes(generator(stream), count, height, width, probability, self.erasing, self.shape)

        drawn: dict[str, Any] = {}
        if further := self.shape.count - 1:
            more_boxes = boxes(BOXES, batch * further, 1.0).reshape(batch, further, 4)
            drawn["more_boxes"] = np.where(params.boxes[:, None, 2:3] > 0, more_boxes, 0)
        if self.patch.prob:
            patches = draw_patches(generator(PATCHES), batch, height, width, self.patch)
            drawn["patches"], drawn["patch_sources"] = patches
        if self.rand_augment.prob:
            operations = draw_operations(generator(OPERATIONS), batch, self.rand_augment)
            drawn["operations"], drawn["levels"] = operations
        if self.affine.prob:
            drawn["matrices"] = draw_matrices(generator(AFFINE), batch, height, width, self.affine)
        if self.grey:
            drawn["grey"] = generator(GREY).random(batch) < self.grey
        if self.local_grey:
            drawn["grey_boxes"] = boxes(LOCAL_GREY, batch, self.local_grey)
        if self.blur.prob:
            drawn["sigmas"] = draw_sigmas(generator(BLUR), batch, self.blur)
        return replace(params, **drawn)

    def apply(self, images: Tensor, params: AugmentationParams) -> Tensor:
        """Return the model's input, float32 [batch, channels, H, W], on the device of the images.

        Args:
            images: Decoded images, uint8 [batch + n, H, W, 3]; not changed. The last n are `params.patch_images`.
            params: Parameters for the first images.
        """
        images, origins = images[..., : self.image_spec.channels].split([len(params.flip), len(params.patch_images)])
        device = gpu if images.is_cuda else cpu
        images = self._transform(device.flip_and_crop(images, params, self.padding), origins, params)
        batch = normalise_pixels(images, self.image_spec)
        device.erase(batch, params, self.erasing)
        if params.more_boxes is not None:
            for boxes in params.more_boxes.swapaxes(0, 1):
                device.erase(batch, replace(params, boxes=boxes), self.erasing)
        return batch.permute(0, 3, 1, 2)

    def _transform(self, images: Tensor, origins: Tensor, params: AugmentationParams) -> Tensor:
        if params.patches is not None and params.patch_sources is not None:
            images = paste_patches(images, origins, params.patches, params.patch_sources)
        if params.matrices is not None:
            images = warp_images(images, params.matrices)
        if params.operations is not None and params.levels is not None:
            images = apply_operations(images, params.operations, params.levels)
        if params.jitter:
            images = jitter_colors(images, params.jitter)
        if params.grey is not None:
            images = make_grey(images, params.grey)
        if params.grey_boxes is not None:
            images = make_boxes_grey(images, params.grey_boxes)
        if params.sigmas is not None:
            images = blur_images(images, params.sigmas, self.blur.sigma)
        return images
