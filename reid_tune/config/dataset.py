"""Section `dataset`: folders, batches, augmentation, the validation split."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from reid_tune.config.base import AutoBool, Section

__all__ = ["ColorJitter", "Dataset", "ExtraTest"]

Deviation = Annotated[float, Field(gt=0)]


def _folders(value: Any) -> Any:
    several = isinstance(value, list | tuple) and value and all(isinstance(folder, str) for folder in value)
    if value is not None and not isinstance(value, str) and not several:
        raise ValueError("should be a folder or a list of folders")
    return value


Folders = Annotated[str | tuple[str, ...] | None, BeforeValidator(_folders)]


class ColorJitter(Section):
    prob: float = Field(0.0, ge=0, le=1, description="Probability of colour jitter; 0 switches it off.")
    brightness: float = Field(0.2, ge=0, le=1, description="Brightness times 1 - this .. 1 + this.")
    contrast: float = Field(0.2, ge=0, le=1, description="Contrast times 1 - this .. 1 + this.")
    saturation: float = Field(0.1, ge=0, le=1, description="Saturation times 1 - this .. 1 + this.")
    hue: float = Field(0.05, ge=0, le=0.5, description="Hue plus or minus this share of the colour circle.")


class ExtraTest(Section):
    name: str = Field(min_length=1, description="Name of the row.")
    query_dataset_dir: str = Field(min_length=1, description="Folder of query images.")
    test_dataset_dir: str = Field(min_length=1, description="Folder of gallery images.")


class Dataset(Section):
    train_dataset_dir: Folders = Field(
        None,
        description="Folder of training images, Market-1501 file names; of several folders (a list) identities and "
        "cameras are kept apart.",
    )
    test_dataset_dir: str | None = Field(None, description="Folder of gallery images.")
    query_dataset_dir: str | None = Field(None, description="Folder of query images.")
    strict: bool = Field(False, description="An image whose name does not parse is an error; otherwise it is left out.")
    num_classes: int = Field(751, ge=1, description="Expected training identities; the folder's own count wins.")
    batch_size: int = Field(64, ge=2, description="Images in one training step, over all workers.")
    val_batch_size: int = Field(128, ge=1, description="Images in one step of evaluation, on one worker.")
    num_workers: int = Field(1, ge=1, description="Threads that decode the images, once on a machine.")
    resident: AutoBool = Field(
        "auto",
        description="Keep the decoded training images in the GPU's memory; auto does so where they take at most a "
        "quarter of what is free. No effect on a CPU.",
    )
    pixel_mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="Mean of RGB in 0..1.")
    pixel_std: tuple[Deviation, Deviation, Deviation] = Field(
        (0.226, 0.226, 0.226), description="Standard deviation of RGB in 0..1."
    )
    padding: int = Field(10, ge=0, description="Black border in pixels before the random crop.")
    prob: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    re_prob: float = Field(0.5, ge=0, le=1, description="Probability of random erasing.")
    color_jitter: ColorJitter = Field(default_factory=ColorJitter, description="Colour jitter.")
    sampler: Literal["softmax", "triplet", "softmax_triplet"] = Field(
        "softmax_triplet",
        description="The loss: identity, triplet or both. Batches are always P identities x K images.",
    )
    num_instances: int = Field(4, ge=1, description="K, images of one identity in a batch.")
    validation: str = Field(
        "auto",
        min_length=1,
        description="Data for validation: test (the test folders), holdout (identities held out of training), none, a "
        "folder with query and bounding_box_test, or one with the lists of `reid-tune split`; auto takes the test "
        "folders where both exist. A sweep always holds out.",
    )
    validation_fraction: float = Field(0.2, gt=0, lt=1, description="Share of training identities that is held out.")
    validation_seed: int = Field(0, ge=0, description="Which identities are held out.")
    extra_tests: tuple[ExtraTest, ...] = Field(
        (), description="Further test sets (name, query_dataset_dir, test_dataset_dir) for evaluate, a row each."
    )

    @property
    def train_folders(self) -> tuple[str, ...]:
        """The training folders; empty where none is set."""
        given = self.train_dataset_dir
        return (given,) if isinstance(given, str) else given or ()
