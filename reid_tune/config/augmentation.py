"""Sections of `dataset` about augmentation, except the colour jitter."""

from pydantic import Field

from reid_tune.config.base import Section

__all__ = ["Affine", "Blur", "ErasingShape", "RandAugment", "RandomPatch"]


class ErasingShape(Section):
    min_area: float = Field(0.02, gt=0, lt=1, description="Smallest box, as a fraction of the image.")
    max_area: float | None = Field(
        None, gt=0, lt=1, description="Largest box, as a fraction of the image; default 0.4, of a Swin 1/3."
    )
    min_aspect: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Smallest height / width of a box; the largest is 1 / min_aspect. Default: 0.3 to 3.33.",
    )
    count: int = Field(1, ge=1, le=20, description="Number of boxes in an image that is erased.")


class RandAugment(Section):
    prob: float = Field(0.0, ge=0, le=1, description="Probability of RandAugment per image; 0 switches it off.")
    num_ops: int = Field(2, ge=1, le=14, description="Number of operations, each drawn from 14.")
    magnitude: float = Field(
        9.0,
        ge=0,
        le=30,
        description="Strength of the operations, on the scale of 0 to 30 of torchvision's RandAugment.",
    )


class RandomPatch(Section):
    prob: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability that an image gets a box of another image of the batch; 0 switches it off.",
    )
    min_area: float = Field(0.01, gt=0, lt=1, description="Smallest box, as a fraction of the image.")
    max_area: float = Field(0.5, gt=0, lt=1, description="Largest box, as a fraction of the image.")
    min_aspect: float = Field(
        0.1, gt=0, le=1, description="Smallest height / width of a box; the largest is 1 / min_aspect."
    )


class Affine(Section):
    prob: float = Field(0.0, ge=0, le=1, description="Probability of an affine transform per image; 0 switches it off.")
    degrees: float = Field(10.0, ge=0, le=180, description="Rotation by up to this angle in degrees, both ways.")
    translate: float = Field(0.05, ge=0, lt=1, description="Shift by up to this fraction of height and width.")
    scale: float = Field(0.1, ge=0, lt=1, description="Size is multiplied by a factor in 1 - value .. 1 + value.")
    shear: float = Field(5.0, ge=0, lt=90, description="Horizontal shear by up to this angle in degrees, both ways.")


class Blur(Section):
    prob: float = Field(0.0, ge=0, le=1, description="Probability of a Gaussian blur per image; 0 switches it off.")
    sigma: float = Field(
        1.0, gt=0, le=10, description="Largest standard deviation in pixels; the smallest is a tenth of it."
    )
