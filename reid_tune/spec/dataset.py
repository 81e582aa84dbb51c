"""Section `dataset`: folders, batches, augmentation, the validation split."""

from typing import Annotated, Literal

from pydantic import Field

from reid_tune.spec.base import Section

__all__ = ["Dataset"]

Deviation = Annotated[float, Field(gt=0)]


class Dataset(Section):
    train_dataset_dir: str | None = Field(None, description="Folder of training images, Market-1501 file names.")
    test_dataset_dir: str | None = Field(None, description="Folder of gallery images.")
    query_dataset_dir: str | None = Field(None, description="Folder of query images.")
    num_classes: int = Field(751, ge=1, description="Expected training identities; the folder's own count wins.")
    batch_size: int = Field(64, ge=2, description="Images in one training step, over all workers.")
    val_batch_size: int = Field(128, ge=1, description="Images in one step of evaluation, on one worker.")
    num_workers: int = Field(1, ge=1, description="Threads that decode the images, once at the start.")
    pixel_mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="Mean of RGB in 0..1.")
    pixel_std: tuple[Deviation, Deviation, Deviation] = Field(
        (0.226, 0.226, 0.226), description="Standard deviation of RGB in 0..1."
    )
    padding: int = Field(10, ge=0, description="Black border in pixels before the random crop.")
    prob: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    re_prob: float = Field(0.5, ge=0, le=1, description="Probability of random erasing.")
    sampler: Literal["softmax", "triplet", "softmax_triplet"] = Field(
        "softmax_triplet",
        description="The loss: identity, triplet or both. Batches are always P identities x K images.",
    )
    num_instances: int = Field(4, ge=1, description="K, images of one identity in a batch.")
    validation: Literal["auto", "none", "test", "holdout"] = Field(
        "auto",
        description="Data for validation: test folders, identities held out of training, none; auto takes the test "
        "folders where both exist. A sweep always holds out.",
    )
    validation_fraction: float = Field(0.2, gt=0, lt=1, description="Share of training identities that is held out.")
    validation_seed: int = Field(0, ge=0, description="Which identities are held out.")
