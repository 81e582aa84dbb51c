"""Crops in the Market-1501 form: identity and camera are read from the file name, never from the path."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid_tune.errors import InputError

__all__ = ["Folder", "Record", "labels", "read_folder", "training_records"]

NAME = re.compile(r"(-?\d+)_c(\d+)", re.ASCII)
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png"})
WANTED = "IDENTITY_cCAMERA...jpg (or .jpeg, .png) such as 0002_c1s1_000451_03.jpg"


@dataclass(frozen=True, slots=True)
class Record:
    """One crop; identity -1 is junk (a bad detection) and 0 a distractor (nobody in the query)."""

    path: Path
    identity: int
    camera: int


@dataclass(frozen=True, slots=True)
class Folder:
    """The crops of one folder, ordered by file name, and the image files whose names do not parse."""

    path: Path
    records: tuple[Record, ...]
    left_out: tuple[str, ...]

    @property
    def junk(self) -> int:
        """Number of images below identity 0."""
        return sum(record.identity < 0 for record in self.records)

    @property
    def distractors(self) -> int:
        """Number of images of identity 0."""
        return sum(record.identity == 0 for record in self.records)


def read_folder(path: Path | str, *, strict: bool = False) -> Folder:
    """Read a flat folder of crops.

    Hidden files, sub-folders and files that are no images are passed over.

    Args:
        strict: a name that does not parse is an error instead of an entry in `left_out`.

    Raises:
        InputError: no such folder, a file in its place, no usable image, or a bad name with `strict`.
    """
    path = Path(path)
    names = _list(path)
    images = [name for name in names if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS]
    matches = {name: NAME.match(name) for name in images}
    left_out = tuple(name for name, match in matches.items() if match is None)
    if strict and left_out:
        raise InputError(
            f"{path} holds {len(left_out)} image(s) whose names do not parse, the first is {left_out[0]!r}; "
            f"rename them to {WANTED}, or switch the strict check off."
        )
    records = tuple(Record(path / name, int(match[1]), int(match[2])) for name, match in matches.items() if match)
    if not records:
        found = f"it holds for example {(left_out or names)[0]!r}" if names else "it is empty"
        raise InputError(f"no usable image in {path}: {found}; wanted are names like {WANTED}.")
    return Folder(path, records, left_out)


def training_records(folder: Folder) -> tuple[Record, ...]:
    """The records of real identities; `folder.junk + folder.distractors` says how many are left out.

    Raises:
        InputError: none remains.
    """
    records = tuple(record for record in folder.records if record.identity > 0)
    if not records:
        raise InputError(f"{folder.path} holds only junk (-1) and distractors (0); training needs identities above 0.")
    return records


def labels(records: Sequence[Record]) -> tuple[np.ndarray, list[int]]:
    """Class labels, int64 [N] in 0..classes-1, and the identity of each class in ascending order."""
    identities = sorted({record.identity for record in records})
    position = {identity: label for label, identity in enumerate(identities)}
    return np.array([position[record.identity] for record in records], dtype=np.int64), identities


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
