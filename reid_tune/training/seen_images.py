"""Identities that pretrained weights have seen, by the fingerprints of the images that they were trained on."""

from collections.abc import Iterable, Sequence

import numpy as np

from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.config.model import pretrained_choice
from reid_tune.data.fingerprint import image_fingerprints
from reid_tune.data.records import ImageRecord
from reid_tune.data.splits import Split
from reid_tune.training.weights_file import weights_images

__all__ = ["find_seen_identities", "find_seen_validation"]


def find_seen_identities(records: Sequence[ImageRecord], weights: Iterable[str], passphrase: str | None) -> set[int]:
    """Return the identities of which weights were trained on an image.

    A copy of an image under another name is found, an image that was encoded or cropped another time is not.

    Args:
        records: Images.
        weights: Files of weights; those that do not say what they were trained on have seen nothing.
        passphrase: Key of encrypted checkpoints.

    Raises:
        InputError: A file or an image cannot be read.
    """
    images = [seen.numpy() for file in weights if (seen := weights_images(file, passphrase)) is not None]
    if not images:
        return set()
    is_seen = np.isin(image_fingerprints(records), np.concatenate(images))
    return {record.identity for record, seen in zip(records, is_seen, strict=True) if seen}


def find_seen_validation(experiment: Experiment, split: Split) -> set[int]:
    """Return the identities of a run's validation that its pretrained weights have seen, see `find_seen_identities`.

    Args:
        experiment: Spec of the run.
        split: Its training and validation images.
    """
    weights = experiment.model.pretrained_model_path
    if not weights or not pretrained_choice(experiment.model):
        return set()
    return find_seen_identities([*split.query, *split.gallery], [weights], find_passphrase(experiment))
