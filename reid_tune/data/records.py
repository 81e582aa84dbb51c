"""Images with Market-1501 file names: identity and camera are read from the file name, never from the path."""

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

# The limits on digits keep all numbers, with offsets too, within an int64.
NAME_PATTERN = re.compile(r"(-?\d{1,12})_c(\d{1,9})(?!\d)", re.ASCII)
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png"})
NAME_FORMAT = "IDENTITY_cCAMERA...jpg (or .jpeg, .png) such as 0002_c1s1_000451_03.jpg"


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image.

    Attributes:
        path: The file.
        identity: Identity; -1 is junk (a bad detection), 0 a distractor (not in the queries).
        camera: Camera.
        identity_offset: Number added to the identity in the file name, to keep several training folders apart.
    """

    path: Path
    identity: int
    camera: int
    identity_offset: int = 0


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of one folder, ordered by file name, and the names of image files that do not parse."""

    path: Path
    records: tuple[ImageRecord, ...]
    unparsed_names: tuple[str, ...]

    @property
    def junk(self) -> int:
        """Number of junk images (identity below 0)."""
        return sum(record.identity < 0 for record in self.records)

    @property
    def distractors(self) -> int:
        """Number of distractors (identity 0)."""
        return sum(record.identity == 0 for record in self.records)


def read_image_folder(path: Path | str, *, strict: bool = False) -> ImageFolder:
    """List a flat folder of images.

    Hidden files, subfolders and files that are not images are skipped.

    Args:
        path: The folder; for `s3://...` its copy on this machine is listed, see `ensure_local_folder`.
        strict: Treat a file name that does not parse as an error instead of adding it to `unparsed_names`.

    Raises:
        InputError: The folder is missing, is a file or has no usable image, or a name does not parse with `strict`.
    """
    path = ensure_local_folder(path)
    names = _list_names(path)
    images = [name for name in names if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS]
    matches = {name: NAME_PATTERN.match(name) for name in images}
    unparsed_names = tuple(name for name, match in matches.items() if match is None)
    if strict and unparsed_names:
        raise InputError(
            f"{path} has {len(unparsed_names)} image(s) whose names do not parse; the first is "
            f"{unparsed_names[0]!r}; "
            f"rename them to {NAME_FORMAT}, or set dataset.strict=false."
        )
    records = tuple(ImageRecord(path / name, int(match[1]), int(match[2])) for name, match in matches.items() if match)
    if not records:
        content = f"it contains for example {(unparsed_names or names)[0]!r}" if names else "it is empty"
        raise InputError(f"no usable image in {path}: {content}; image names must be {NAME_FORMAT}.")
    return ImageFolder(path, records, unparsed_names)


def read_training_folders(paths: Sequence[Path | str], *, strict: bool = False) -> tuple[ImageFolder, ...]:
    """List folders with independent identity and camera numbers, and add offsets that keep the numbers apart.

    The offset of a folder's identities above 0 and of its cameras is the largest identity and camera of all folders
    before it. Junk and distractors keep their identity.

    Args:
        paths: Training folders.
        strict: See `read_image_folder`.

    Raises:
        InputError: See `read_image_folder`, or one folder is given twice.
    """
    path_of: dict[Path, Path | str] = {}
    folders: list[ImageFolder] = []
    identity = camera = 0
    for path in paths:
        if first := path_of.get(Path(path).resolve()):
            spelling = "" if str(first) == str(path) else f", once as {first}"
            raise InputError(
                f"dataset.train_dataset_dir names the folder {path} twice{spelling}, which would count its identities "
                "twice: name each folder once."
            )
        path_of[Path(path).resolve()] = path
        folder = _add_offsets(read_image_folder(path, strict=strict), identity, camera)
        identity = max(identity, *(record.identity for record in folder.records))
        camera = max(camera, *(record.camera for record in folder.records))
        folders.append(folder)
    return tuple(folders)


def training_records(*folders: ImageFolder) -> tuple[ImageRecord, ...]:
    """Return the records with identities above 0, so without junk and distractors.

    Raises:
        InputError: A folder has no such record.
    """
    for folder in folders:
        if all(record.identity <= 0 for record in folder.records):
            raise InputError(
                f"{folder.path} has only junk (-1) and distractors (0); training needs identities above 0."
            )
    return tuple(record for folder in folders for record in folder.records if record.identity > 0)


def class_labels(records: Sequence[ImageRecord]) -> tuple[np.ndarray, list[int]]:
    """Return class labels, int64 [N] in 0..classes-1, and the identity of each class in ascending order."""
    identities = sorted({record.identity for record in records})
    label_of = {identity: label for label, identity in enumerate(identities)}
    return np.array([label_of[record.identity] for record in records], dtype=np.int64), identities


def _add_offsets(folder: ImageFolder, identity_offset: int, camera_offset: int) -> ImageFolder:
    """Return a folder with offsets added to its identities above 0 and to its cameras."""
    if not identity_offset and not camera_offset:
        return folder
    records = []
    for record in folder.records:
        offset = identity_offset if record.identity > 0 else 0
        records.append(ImageRecord(record.path, record.identity + offset, record.camera + camera_offset, offset))
    return replace(folder, records=tuple(records))


def _list_names(path: Path) -> list[str]:
    """Return the sorted names in a folder; subfolders get a slash so that they do not look like images."""
    try:
        with os.scandir(path) as entries:
            return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    except FileNotFoundError:
        raise InputError(f"there is no folder {path}; check the path of the data set.") from None
    except NotADirectoryError:
        raise InputError(f"{path} is a file; give the folder that contains the images.") from None
    except OSError as error:
        raise InputError(f"cannot read the folder {path}: {error.strerror}.") from None
