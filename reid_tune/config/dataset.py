"""Section `dataset`: folders, batches, augmentation, the validation split."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from reid_tune.config.augmentation import Affine, Blur, ErasingShape, RandAugment, RandomPatch
from reid_tune.config.base import AutoBool, Section
from reid_tune.config.interpolation import is_missing

__all__ = ["VALIDATION_CHOICES", "ColorJitter", "Dataset", "ExtraTest"]

# Words that `dataset.validation` may be; any other text is a folder.
VALIDATION_CHOICES = ("auto", "none", "test", "holdout")

Deviation = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(gt=0)]


def _check_folders(value: Any) -> Any:
    is_list = isinstance(value, list | tuple) and value and all(isinstance(folder, str | None) for folder in value)
    if value is not None and not isinstance(value, str) and not is_list:
        raise ValueError("should be a folder or a list of folders")
    if not is_list:
        return value
    return tuple(folder for folder in value if not is_missing(folder)) or None  # an empty path is the current folder


Folders = Annotated[str | tuple[str, ...] | None, BeforeValidator(_check_folders)]


class ColorJitter(Section):
    prob: float = Field(0.0, ge=0, le=1, description="Probability of colour jitter per image; 0 switches it off.")
    brightness: float = Field(
        0.2, ge=0, le=1, description="Brightness is multiplied by a factor in 1 - value .. 1 + value."
    )
    contrast: float = Field(
        0.2, ge=0, le=1, description="Contrast is multiplied by a factor in 1 - value .. 1 + value."
    )
    saturation: float = Field(
        0.1, ge=0, le=1, description="Saturation is multiplied by a factor in 1 - value .. 1 + value."
    )
    hue: float = Field(
        0.05, ge=0, le=0.5, description="Hue is shifted by up to this fraction of the colour circle, both ways."
    )


class ExtraTest(Section):
    name: str = Field(min_length=1, description="Name of the test set, shown in the row of its scores.")
    query_dataset_dir: str = Field(min_length=1, description="Folder of query images.")
    test_dataset_dir: str = Field(min_length=1, description="Folder of gallery images.")


class Dataset(Section):
    train_dataset_dir: Folders = Field(
        None,
        description="Folder of training images with Market-1501 file names. In a list of folders, equal numbers in "
        "two folders are different identities and cameras.",
    )
    test_dataset_dir: str | None = Field(None, description="Folder of gallery images.")
    query_dataset_dir: str | None = Field(None, description="Folder of query images.")
    strict: bool = Field(
        False,
        description="Treat a file that may be an image and is left out as an error: a name that does not parse, "
        "another image format, images in a sub-folder, a pipe. Otherwise such files are counted.",
    )
    num_classes: int = Field(
        751, ge=1, description="Expected number of training identities; the number in the folder overrides it."
    )
    batch_size: int = Field(64, ge=2, description="Images per training step, over all workers.")
    val_batch_size: int = Field(128, ge=1, description="Images per step of an evaluation, per worker.")
    num_workers: Annotated[int, AfterValidator(lambda count: max(count, 1))] = Field(
        1, ge=0, description="Threads that decode the images, which happens once per machine; 0 is 1."
    )
    resident: AutoBool = Field(
        "auto",
        description="Keep the decoded training images in GPU memory; auto does so if they need at most a quarter of "
        "the free memory. No effect on a CPU.",
    )
    pixel_mean: tuple[float, float, float] = Field(
        (0.485, 0.456, 0.406), description="Mean of each RGB channel, for values in 0..1."
    )
    pixel_std: tuple[Deviation, Deviation, Deviation] = Field(
        (0.226, 0.226, 0.226), description="Standard deviation of each RGB channel, for values in 0..1."
    )
    padding: int = Field(10, ge=0, description="Black border around an image before the random crop, in pixels.")
    prob: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip per image.")
    re_prob: float = Field(0.5, ge=0, le=1, description="Probability of random erasing per image.")
    erasing: ErasingShape = Field(default_factory=ErasingShape, description="Boxes of random erasing.")
    color_jitter: ColorJitter = Field(default_factory=ColorJitter, description="Colour jitter of training images.")
    random_patch: RandomPatch = Field(default_factory=RandomPatch, description="Boxes of other images of the batch.")
    rand_augment: RandAugment = Field(default_factory=RandAugment, description="RandAugment of training images.")
    affine: Affine = Field(default_factory=Affine, description="Affine transform of training images.")
    grey_prob: float = Field(0.0, ge=0, le=1, description="Probability of a greyscale image.")
    local_grey_prob: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability of a greyscale box in an image, with the area and aspect of `erasing`.",
    )
    blur: Blur = Field(default_factory=Blur, description="Gaussian blur of training images.")
    sampler: Literal["softmax", "triplet", "softmax_triplet"] = Field(
        "softmax_triplet",
        description="Losses: softmax is the identity loss, triplet the metric loss, softmax_triplet both. Batches are "
        "always P identities x K images.",
    )
    num_instances: int = Field(4, ge=1, description="Images per identity in a batch (K).")
    camera_aware: bool = Field(
        False, description="Take the K images of an identity from as many of its cameras as possible."
    )
    folder_weights: tuple[Weight, ...] = Field(
        (),
        description="Factors on how often the identities of each training folder are drawn, one for each folder of "
        "train_dataset_dir. By default all count by their number of images.",
    )
    max_images_per_identity: int | None = Field(
        None,
        ge=1,
        description="Maximum number of images of an identity in an epoch, num_instances or more, which also makes "
        "epochs shorter.",
    )
    validation: str = Field(
        "auto",
        min_length=1,
        description="Validation data: test (the test folders), holdout (a validation split: identities held out of "
        "training), none, a folder with query and bounding_box_test, or a folder with the lists of `reid-tune split`. "
        "auto takes the test folders if both exist, otherwise none. A sweep takes a folder as given, and holdout for "
        "every other value.",
    )
    validation_fraction: float = Field(
        0.2, gt=0, lt=1, description="Fraction of the training identities that is held out for validation."
    )
    validation_seed: int = Field(0, ge=0, description="Seed that selects the held-out identities.")
    validation_unseen_by: tuple[str, ...] = Field(
        (),
        description="Checkpoints whose training identities are not held out: a score on identities that the weights "
        "have seen says nothing. A sweep sets it for its pretrained weights.",
    )
    extra_tests: tuple[ExtraTest, ...] = Field(
        (), description="Further test sets (name, query_dataset_dir, test_dataset_dir) for evaluate, one row each."
    )

    @property
    def train_folders(self) -> tuple[str, ...]:
        """Training folders; empty if none is set."""
        folders = self.train_dataset_dir
        return (folders,) if isinstance(folders, str) else folders or ()
