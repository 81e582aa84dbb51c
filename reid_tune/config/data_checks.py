"""Rules between fields of `dataset` about batches and augmentation."""

from reid_tune.config.experiment import Experiment
from reid_tune.config.model import is_swin

__all__ = ["find_data_errors"]


def find_data_errors(experiment: Experiment) -> list[str]:
    """Return one message for each broken rule."""
    dataset = experiment.dataset
    errors = []
    cap, folders = dataset.max_images_per_identity, dataset.train_folders
    if cap is not None and cap < dataset.num_instances:
        errors.append(
            f"dataset.max_images_per_identity = {cap} is below dataset.num_instances = {dataset.num_instances}, the "
            "images of an identity in one batch: raise it or lower num_instances."
        )
    if dataset.folder_weights and folders and len(dataset.folder_weights) != len(folders):
        errors.append(
            f"dataset.folder_weights has {len(dataset.folder_weights)} values, but dataset.train_dataset_dir has "
            f"{len(folders)} folder{'s' if len(folders) > 1 else ''}: give one value for each."
        )
    return errors + _find_box_errors(experiment)


def _find_box_errors(experiment: Experiment) -> list[str]:
    dataset = experiment.dataset
    erased = dataset.erasing.max_area or (1 / 3 if is_swin(experiment.model.backbone) else 0.4)
    ranges = {
        "erasing": (dataset.erasing.min_area, erased),
        "random_patch": (dataset.random_patch.min_area, dataset.random_patch.max_area),
    }
    return [
        f"dataset.{name}.max_area = {high:.3g} is below dataset.{name}.min_area = {low:g}: raise max_area or lower "
        "min_area."
        for name, (low, high) in ranges.items()
        if high < low
    ]
