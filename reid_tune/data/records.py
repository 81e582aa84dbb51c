"""Crops in the Market-1501 form: identity and camera are read from the file name, never from the path."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reid_tune.errors import InputError
from reid_tune.storage.download_cache import ensure_local_folder

__all__ = [
    "ImageFolder",
    "ImageRecord",
    "class_labels",
    "read_image_folder",
    "read_training_folders",
    "training_records",
]

# So many digits that all numbers, moved apart too, fit an int64.
NAME_PATTERN = re.compile(r"(-?\d{1,12})_c(\d{1,9})(?!\d)", re.ASCII)
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png"})
NAME_FORMAT = "IDENTITY_cCAMERA...jpg (or .jpeg, .png) such as 0002_c1s1_000451_03.jpg"


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One crop; identity -1 is junk (a bad detection) and 0 a distractor (nobody in the query).

    `identity_offset` was added to the identity in the file name, where several training folders are kept apart.
    """

    path: Path
    identity: int
    camera: int
    identity_offset: int = 0


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The crops of one folder, ordered by file name, and the image files whose names do not parse."""

    path: Path
    records: tuple[ImageRecord, ...]
    unparsed_names: tuple[str, ...]

    @property
    def junk(self) -> int:
        """Number of images below identity 0."""
        return sum(record.identity < 0 for record in self.records)

    @property
    def distractors(self) -> int:
        """Number of images of identity 0."""
        return sum(record.identity == 0 for record in self.records)


def read_image_folder(path: Path | str, *, strict: bool = False) -> ImageFolder:
    """Read a flat folder of crops; of one at `s3://...` the copy on this machine, see `ensure_local_folder`.

    Hidden files, sub-folders and files that are no images are passed over.

    Args:
        strict: a name that does not parse is an error instead of an entry in `unparsed_names`.

    Raises:
        InputError: no such folder, a file in its place, no usable image, or a bad name with `strict`.
    """
    path = ensure_local_folder(path)
    names = _list(path)
    images = [name for name in names if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS]
    matches = {name: NAME_PATTERN.match(name) for name in images}
    unparsed_names = tuple(name for name, match in matches.items() if match is None)
    if strict and unparsed_names:
        raise InputError(
            f"{path} holds {len(unparsed_names)} image(s) whose names do not parse, the first is "
            f"{unparsed_names[0]!r}; "
            f"rename them to {NAME_FORMAT}, or switch the strict check off."
        )
    records = tuple(ImageRecord(path / name, int(match[1]), int(match[2])) for name, match in matches.items() if match)
    if not records:
        found = f"it holds for example {(unparsed_names or names)[0]!r}" if names else "it is empty"
        raise InputError(f"no usable image in {path}: {found}; wanted are names like {NAME_FORMAT}.")
    return ImageFolder(path, records, unparsed_names)


def read_training_folders(paths: Sequence[Path | str], *, strict: bool = False) -> tuple[ImageFolder, ...]:
    """Read folders whose people and cameras are numbered independently, and move the numbers apart.

    To the identities above 0 and to the cameras of a folder the largest identity and camera of all folders before it
    are added; junk and distractors remain what they are.

    Raises:
        InputError: as of `read_image_folder`, or one folder is given twice.
    """
    given: dict[Path, Path | str] = {}
    folders: list[ImageFolder] = []
    identity = camera = 0
    for path in paths:
        if first := given.get(Path(path).resolve()):
            spelling = "" if str(first) == str(path) else f", once as {first}"
            raise InputError(
                f"dataset.train_dataset_dir names the folder {path} twice{spelling}; its people would be taken for "
                "two sets of people: name each folder once."
            )
        given[Path(path).resolve()] = path
        folder = _moved(read_image_folder(path, strict=strict), identity, camera)
        identity = max(identity, *(record.identity for record in folder.records))
        camera = max(camera, *(record.camera for record in folder.records))
        folders.append(folder)
    return tuple(folders)


def training_records(*folders: ImageFolder) -> tuple[ImageRecord, ...]:
    """The records of real identities; `junk + distractors` of a folder says how many are left out.

    Raises:
        InputError: none remains in a folder.
    """
    for folder in folders:
        if all(record.identity <= 0 for record in folder.records):
            raise InputError(
                f"{folder.path} holds only junk (-1) and distractors (0); training needs identities above 0."
            )
    return tuple(record for folder in folders for record in folder.records if record.identity > 0)


def class_labels(records: Sequence[ImageRecord]) -> tuple[np.ndarray, list[int]]:
    """Class labels, int64 [N] in 0..classes-1, and the identity of each class in ascending order."""
    identities = sorted({record.identity for record in records})
    position = {identity: label for label, identity in enumerate(identities)}
    return np.array([position[record.identity] for record in records], dtype=np.int64), identities


def _moved(folder: ImageFolder, identity: int, camera: int) -> ImageFolder:
    """The folder with numbers added to identities (above 0) and cameras."""
    if not identity and not camera:
        return folder
    records = []
    for record in folder.records:
        shift = identity if record.identity > 0 else 0
        records.append(ImageRecord(record.path, record.identity + shift, record.camera + camera, shift))
    return replace(folder, records=tuple(records))


def _list(path: Path) -> list[str]:
    """Sorted names in a folder, sub-folders with a slash so that they cannot pass for images."""
    try:
        with os.scandir(path) as entries:
            return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    except FileNotFoundError:
        raise InputError(f"there is no folder {path}; check the path of the data set.") from None
    except NotADirectoryError:
        raise InputError(f"{path} is a file; give the folder that holds the images.") from None
    except OSError as error:
        raise InputError(f"cannot read the folder {path}: {error.strerror}.") from None
