"""The task `split`: write the validation split of a spec as lists of image files."""

from pathlib import Path

from reid_tune.config.experiment import Experiment
from reid_tune.data.records import ImageRecord
from reid_tune.data.split_files import write_split
from reid_tune.data.splits import Split
from reid_tune.errors import InputError
from reid_tune.training.data_split import DataSplit, has_validation_split, load_split

__all__ = ["SPLIT", "run_split", "write_split_lists"]

# Folder of the lists, next to the files that a training or a sweep writes.
SPLIT = "split"


def run_split(experiment: Experiment, directory: Path) -> dict[str, dict[str, int]]:
    """Write the lists into a new or empty folder.

    Returns:
        Counts of `images`, `identities` and `cameras` by list.

    Raises:
        InputError: the folder is not empty or cannot be written, or the spec's data are unusable or not split.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} is not an empty folder; give the name of a new one.")
    split = write_split_lists(experiment, directory)
    return {"train": _count(split.train), "query": _count(split.query), "gallery": _count(split.gallery)}


def write_split_lists(experiment: Experiment, directory: Path, split: DataSplit | None = None) -> Split:
    """Write the lists of a spec's validation split, see `write_split`, and return the split.

    Args:
        experiment: The spec.
        directory: Folder of the lists.
        split: Result of `load_split` for the spec; None loads it.

    Raises:
        InputError: the spec holds nothing out, its data are unusable, or the folder cannot be written.
    """
    if not has_validation_split(experiment):
        raise InputError(
            f"dataset.validation = {experiment.dataset.validation!r} holds no training identities out: set it to "
            "holdout."
        )
    split = split or load_split(experiment)
    write_split(directory, split, split.folders)
    return split


def _count(records: tuple[ImageRecord, ...]) -> dict[str, int]:
    identities, cameras = ({getattr(record, name) for record in records} for name in ("identity", "camera"))
    return {"images": len(records), "identities": len(identities), "cameras": len(cameras)}
