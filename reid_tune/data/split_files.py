"""A validation split as three lists of image files, for other tools and for reading back."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from reid_tune.data.file_names import NAME_FORMAT, has_image_suffix, parse_name
from reid_tune.data.records import ImageFolder, ImageRecord, training_records
from reid_tune.data.splits import Split
from reid_tune.errors import InputError
from reid_tune.files import atomic_path, display_name
from reid_tune.identities import is_person

__all__ = ["LISTS", "read_split", "write_split"]

LISTS = TRAIN, QUERY, GALLERY = "train.txt", "query.txt", "gallery.txt"


def write_split(directory: Path | str, split: Split, folders: Sequence[ImageFolder]) -> None:
    """Write `train.txt`, `query.txt` and `gallery.txt`, with one image per line.

    A line is the path of an image relative to the root, the folder that contains the training folders (the parent of a
    single one): `bounding_box_train/0002_c1s1_000451_03.jpg`. So images with equal names in several folders stay
    apart, and the lists stay valid when the data are moved. In the root, `xargs -d '\\n' -a LIST cp -t TARGET`,
    `tar -T LIST` and `rsync --files-from=LIST . TARGET` accept a list unchanged.

    All three files are complete before the first appears. Existing files are replaced.

    Args:
        directory: Folder of the lists.
        split: The split.
        folders: All training folders, from `read_training_folders`.

    Raises:
        InputError: The folder cannot be written, or the name of an image contains a line break.
    """
    root, directory = _root(folders), Path(directory)
    with ExitStack() as files:
        for name, records in zip(LISTS, (split.train, split.query, split.gallery), strict=True):
            lines = [os.path.relpath(record.path, root) for record in records]
            if broken := [line for line in lines if "\n" in line or "\r" in line]:
                raise InputError(f"the name of the image {broken[0]!r} in {root} contains a line break: rename it.")
            temporary = files.enter_context(atomic_path(directory / name))
            # File names are bytes: those that are not UTF-8 are kept unchanged.
            temporary.write_bytes(os.fsencode("".join(f"{line}\n" for line in lines)))


def read_split(directory: Path | str, folders: Sequence[ImageFolder]) -> Split:
    """Read the lists of `write_split`, which other tools may have written or reordered.

    Absolute paths, CRLF and blank lines are accepted. Images in none of the lists are skipped. The records have the
    order of the folders, so the order in the lists does not matter.

    Args:
        directory: Folder of the lists.
        folders: All training folders, from `read_training_folders`.

    Raises:
        InputError: A list is missing, empty or not text; a line is not a training image (of an identity above 0), or
            an image is listed twice; or an identity is in training and in query or gallery.
    """
    root, directory = _root(folders), Path(directory)
    images = {os.path.abspath(record.path): record for record in training_records(*folders)}
    position_of: dict[str, str] = {}
    parts = []
    for name in LISTS:
        listed = set()
        for number, line in _lines(directory / name):
            path, position = os.path.normpath(os.path.join(root, line)), f"{name} line {number}"
            if path not in images:
                raise InputError(f"{directory}/{position}: {_explain_unknown(line, root)}")
            if path in position_of:
                raise InputError(
                    f"{directory}/{position}: {line!r} is also in {position_of[path]}; list each image once."
                )
            position_of[path] = position
            listed.add(path)
        parts.append(tuple(record for path, record in images.items() if path in listed))
    train, query, gallery = parts
    _require_apart(directory, train, query + gallery)
    return Split(train, query, gallery)


def _root(folders: Sequence[ImageFolder]) -> str:
    """Return the absolute path that the lines of all lists are relative to."""
    return os.path.commonpath([os.path.dirname(os.path.abspath(folder.path)) for folder in folders])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, each with its 1-based number."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe may never end
            raise InputError(f"{display_name(path)} is not a file; a split is a folder with {', '.join(LISTS)}.")
        text = os.fsdecode(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"there is no {display_name(path)}; a split is a folder with {', '.join(LISTS)}.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    if "\0" in text:
        raise InputError(f"{path} is not a text file; write one image file per line.")
    if not text.strip():
        raise InputError(f"{path} is empty; a split needs images in each of {', '.join(LISTS)}.")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip()


def _explain_unknown(line: str, root: str) -> str:
    """Return why a line is not a training image, and what to do."""
    name = os.path.basename(line)
    numbers = parse_name(name) if has_image_suffix(name) else None
    if numbers is None:
        return f"{line!r} is not an image name; a line is a path relative to {root}, to {NAME_FORMAT}."
    if not is_person(numbers[0]):
        return f"{line!r} is junk or a distractor; list images of identities above 0."
    return f"there is no {line!r} in the training folders; lines are paths relative to {root}, which contains them."


def _require_apart(directory: Path, train: Sequence[ImageRecord], validation: Sequence[ImageRecord]) -> None:
    examples = {record.identity: record for record in train}
    if shared := sorted({record.identity for record in validation} & examples.keys()):
        raise InputError(
            f"{directory}: the identity of {display_name(examples[shared[0]].path.name)} is in {TRAIN} and in "
            f"{QUERY} or {GALLERY} ({len(shared)} in all), so the score would be "
            "meaningless; keep all images of an identity on one side."
        )
