"""Images with Market-1501 file names: identity and camera are read from the file name, never from the path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from reid_tune.data.file_names import parse_name
from reid_tune.data.left_out import explain_unusable, require_complete
from reid_tune.data.listing import Listing, Reason, list_folder
from reid_tune.errors import InputError
from reid_tune.files import display_name
from reid_tune.identities import is_person
from reid_tune.storage.download_cache import ensure_local_folder
from reid_tune.storage.object_store import is_url

__all__ = [
    "ImageFolder",
    "ImageRecord",
    "class_labels",
    "list_image_folder",
    "read_image_folder",
    "read_training_folders",
    "training_records",
]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image.

    Attributes:
        path: The file.
        identity: Identity, see `reid_tune.identities` for junk and distractors.
        camera: Camera.
        identity_offset: Number added to the identity in the file name, to keep several training folders apart.
    """

    path: Path
    identity: int
    camera: int
    identity_offset: int = 0


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of one folder.

    Attributes:
        path: The folder.
        records: The images with a name that parses, ordered by file name.
        left_out: Names of all other files and folders by reason; only reasons with a name.
    """

    path: Path
    records: tuple[ImageRecord, ...]
    left_out: Mapping[Reason, tuple[str, ...]] = field(default_factory=dict)


def list_image_folder(path: Path | str) -> Listing:
    """List a folder; of `s3://...` its copy on this machine without sub-folders and hidden files.

    Only the files directly below the address are copied: any other files of the copy are not those of the address.

    Raises:
        InputError: See `list_folder` and `ensure_local_folder`.
    """
    listing = list_folder(ensure_local_folder(path))
    if not is_url(str(path)):
        return listing
    left_out = listing.left_out.items()
    ignored = (Reason.SUBFOLDER, Reason.SYSTEM)
    return replace(listing, left_out={reason: names for reason, names in left_out if reason not in ignored})


def read_image_folder(path: Path | str, *, strict: bool = False) -> ImageFolder:
    """List a flat folder of images.

    Args:
        path: The folder; for `s3://...` its copy on this machine is listed, see `ensure_local_folder`.
        strict: Treat a file that may be an image and is left out as an error, see `require_complete`.

    Raises:
        InputError: The folder is missing, is a file or has no usable image, or a file is left out with `strict`.
    """
    listing = list_image_folder(path)
    numbers = {name: parse_name(name) for name in listing.images}
    records = tuple(ImageRecord(listing.path / name, *pair) for name, pair in numbers.items() if pair)
    left_out = dict(listing.left_out)
    if unparsed := tuple(name for name, pair in numbers.items() if pair is None):
        left_out = {Reason.NAME: unparsed, **left_out}
    folder = ImageFolder(listing.path, records, left_out)
    if not records:
        raise InputError(explain_unusable(folder.path, folder.left_out))
    if strict:
        require_complete(folder.path, folder.left_out)
    return folder


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
        if not any(is_person(record.identity) for record in folder.records):
            raise InputError(
                f"{display_name(folder.path)} has only junk (-1) and distractors (0); training needs identities above "
                "0."
            )
    return tuple(record for folder in folders for record in folder.records if is_person(record.identity))


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
        offset = identity_offset if is_person(record.identity) else 0
        records.append(ImageRecord(record.path, record.identity + offset, record.camera + camera_offset, offset))
    return replace(folder, records=tuple(records))
