"""A hold-out as three lists of image files, for other tools and to be read back."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from reid_tune.data.records import (
    EXTENSIONS,
    NAME_FORMAT,
    NAME_PATTERN,
    ImageFolder,
    ImageRecord,
    training_records,
)
from reid_tune.data.splits import Split
from reid_tune.errors import InputError
from reid_tune.files import atomic_path

__all__ = ["LISTS", "read_split", "write_split"]

LISTS = TRAIN, QUERY, GALLERY = "train.txt", "query.txt", "gallery.txt"


def write_split(directory: Path | str, split: Split, folders: Sequence[ImageFolder]) -> None:
    """Write `train.txt`, `query.txt` and `gallery.txt`: one image on a line, and nothing else.

    A line is the path of an image from the root, the folder that holds the training folders (of a single one its
    parent): `bounding_box_train/0002_c1s1_000451_03.jpg`. So images of equal names in several folders stay apart, the
    lists hold wherever the data are moved to, and a reader joins root and line. In the root,
    `xargs -d '\\n' -a LIST cp -t TARGET`, `tar -T LIST` and `rsync --files-from=LIST . TARGET` take a list as it is.

    All three are written before the first appears; files of these names are replaced.

    Args:
        folders: all training folders, as `read_training_folders` gives them.

    Raises:
        InputError: the folder cannot be written, or the name of an image holds a line break.
    """
    root, directory = _root(folders), Path(directory)
    with ExitStack() as files:
        for name, records in zip(LISTS, (split.train, split.query, split.gallery), strict=True):
            lines = [os.path.relpath(record.path, root) for record in records]
            if odd := [line for line in lines if "\n" in line or "\r" in line]:
                raise InputError(f"the image {odd[0]!r} in {root} cannot stand in a list of one line each: rename it.")
            temporary = files.enter_context(atomic_path(directory / name))
            # Names are bytes to the system: such that are no UTF-8 are kept as they are.
            temporary.write_bytes(os.fsencode("".join(f"{line}\n" for line in lines)))


def read_split(directory: Path | str, folders: Sequence[ImageFolder]) -> Split:
    """Read the lists of `write_split`; other tools may have made or reordered them.

    Absolute paths, CRLF and blank lines are taken too. Images that stand in no list are left out. The records are in
    the order of the folders, so that order in the lists does not matter.

    Args:
        folders: all training folders, as `read_training_folders` gives them.

    Raises:
        InputError: a list is missing, empty or no text; a line names no training image (of an identity above 0), or
            one that was listed before; or an identity is in training and in query or gallery.
    """
    root, directory = _root(folders), Path(directory)
    images = {os.path.abspath(record.path): record for record in training_records(*folders)}
    places: dict[str, str] = {}
    parts = []
    for name in LISTS:
        own = set()
        for number, line in _lines(directory / name):
            path, place = os.path.normpath(os.path.join(root, line)), f"{name} line {number}"
            if path not in images:
                raise InputError(f"{directory}/{place}: {_unknown(line, root)}")
            if path in places:
                raise InputError(f"{directory}/{place}: {line!r} stands in {places[path]} too; list each image once.")
            places[path] = place
            own.add(path)
        parts.append(tuple(record for path, record in images.items() if path in own))
    train, query, gallery = parts
    _require_apart(directory, train, query + gallery)
    return Split(train, query, gallery)


def _root(folders: Sequence[ImageFolder]) -> str:
    """The absolute path that the lines of all lists begin at."""
    return os.path.commonpath([os.path.dirname(os.path.abspath(folder.path)) for folder in folders])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its 1-based number."""
    try:
        text = os.fsdecode(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"there is no {path}; a split is a folder with {', '.join(LISTS)}.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    if "\0" in text:
        raise InputError(f"{path} is no text in UTF-8; write one image file on each line.")
    if not text.strip():
        raise InputError(f"{path} is empty; a split needs images in each of {', '.join(LISTS)}.")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip()


def _unknown(line: str, root: str) -> str:
    """Why a line names none of the training images, and what to do."""
    name = os.path.basename(line)
    match = NAME_PATTERN.match(name)
    if match is None or os.path.splitext(name)[1].lower() not in EXTENSIONS:
        return f"{line!r} is no image name; a line is a path from {root} to {NAME_FORMAT}."
    if int(match[1]) <= 0:
        return f"{line!r} is junk or a distractor; list images of identities above 0."
    return f"there is no {line!r} in the training folders; lines are paths from {root}, which holds these folders."


def _require_apart(directory: Path, train: Sequence[ImageRecord], held: Sequence[ImageRecord]) -> None:
    examples = {record.identity: record for record in train}
    if both := sorted({record.identity for record in held} & examples.keys()):
        raise InputError(
            f"{directory}: the identity of {examples[both[0]].path.name} is in {TRAIN} and in {QUERY} or {GALLERY} "
            f"({len(both)} in all), which spoils the hold-out; keep all images of an identity on one side."
        )
