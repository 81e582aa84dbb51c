"""Files of a folder: the images, and what is left out by reason."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reid_tune.data.file_names import has_image_suffix, is_other_image, is_system_name
from reid_tune.errors import InputError
from reid_tune.files import display_name

__all__ = ["POSSIBLE_IMAGES", "Listing", "Reason", "count_images_below", "list_folder"]


class Reason(StrEnum):
    """Reason for which a file is left out; the value is its name in tables, JSON and the event log.

    The first four are those of files that may be images: `dataset.strict` makes them an error.
    """

    NAME = "name"
    FORMAT = "format"
    SUBFOLDER = "subfolder"
    NOT_REGULAR = "not_regular"
    SUFFIX = "suffix"
    SYSTEM = "system"
    JUNK = "junk"
    DISTRACTOR = "distractor"
    UNLISTED = "unlisted"
    UNREADABLE = "unreadable"


POSSIBLE_IMAGES = (Reason.NAME, Reason.FORMAT, Reason.SUBFOLDER, Reason.NOT_REGULAR)


@dataclass(frozen=True, slots=True)
class Listing:
    """Content of a folder.

    Attributes:
        path: The folder.
        images: Names of the files that end as images do, sorted.
        left_out: Names of all other entries by reason, sorted; only reasons with a name.
    """

    path: Path
    images: tuple[str, ...]
    left_out: Mapping[Reason, tuple[str, ...]]


def list_folder(path: Path) -> Listing:
    """Return the content of a folder.

    A link to a file that does not exist is an image if its name is one, so that it is reported as unreadable.

    Raises:
        InputError: The folder is missing, is a file or cannot be read.
    """
    images: list[str] = []
    left_out: defaultdict[Reason, list[str]] = defaultdict(list)
    for entry in _entries(path):
        reason = _reason(entry)
        (images if reason is None else left_out[reason]).append(entry.name)
    return Listing(
        path,
        tuple(sorted(images)),
        {reason: tuple(sorted(left_out[reason])) for reason in Reason if reason in left_out},
    )


def count_images_below(path: Path) -> int:
    """Return the number of images in a folder and all its sub-folders, without hidden ones.

    A linked folder, which may contain any number of files, and one that cannot be read count as one image each.
    """
    if path.is_symlink():
        return 1
    count, unreadable = 0, list[OSError]()
    for folder, folders, names in os.walk(path, onerror=unreadable.append):
        folders[:] = [name for name in folders if not is_system_name(name)]
        count += sum(os.path.islink(os.path.join(folder, name)) for name in folders)
        count += sum(has_image_suffix(name) and not is_system_name(name) for name in names)
    return count + len(unreadable)


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except FileNotFoundError:
        raise InputError(f"there is no folder {display_name(path)}; check the path of the data set.") from None
    except NotADirectoryError:
        raise InputError(f"{display_name(path)} is a file; give the folder that contains the images.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        message = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read the folder {display_name(path)}: {message}.") from None


def _reason(entry: os.DirEntry[str]) -> Reason | None:
    """Return why an entry is left out, None for an image."""
    if is_system_name(entry.name):
        return Reason.SYSTEM
    if _is_folder(entry):
        return Reason.SUBFOLDER
    if not has_image_suffix(entry.name):
        return Reason.FORMAT if is_other_image(entry.name) else Reason.SUFFIX
    return None if _may_be_opened(entry) else Reason.NOT_REGULAR


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _may_be_opened(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file, or a link that cannot be followed; opening a pipe or device may never end."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True
