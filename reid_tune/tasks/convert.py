"""The task `convert`: arrange a data set of another layout in folders with Market-1501 names."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reid_tune.data.file_names import has_image_suffix
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import make_folder, read_text

__all__ = ["ConvertResult", "convert_msmt17"]

CAMERAS = 15
LINE = re.compile(r"(\S+)\s+(\d{1,9})", re.ASCII)
LAYOUT = (
    "an MSMT17 folder holds list_train.txt, list_val.txt, list_query.txt and list_gallery.txt next to train/ and test/ "
    "(or mask_train_v2/ and mask_test_v2/)"
)


@dataclass(frozen=True)
class ConvertResult:
    """A converted data set.

    Attributes:
        target: Folder of the data set.
        train, query, gallery: Number of images.
        identities: Number of identities in training.
        test_identities: Number of identities in query and gallery.
    """

    target: Path
    train: int
    query: int
    gallery: int
    identities: int
    test_identities: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of a list.

    Attributes:
        path: The image.
        label: Its label, from 0.
        camera: Its camera, from 1.
        line: File and number of the line, for messages.
    """

    path: Path
    label: int
    camera: int
    line: str


def convert_msmt17(source: Path, target: Path) -> ConvertResult:
    """Arrange MSMT17 (Wei et al. 2018) as `bounding_box_train` (train and val lists), `query`, `bounding_box_test`.

    The whole data set has 32,621 training images of 1,041 people, 11,659 queries and 82,161 gallery images of 3,060
    others, of 15 cameras. An image gets the name `00001_c01_<original name>`. An identity is the label + 1, as 0 would
    be a distractor; those of the test, whose labels start at 0 again, follow the largest of training. Images are hard
    links to the source, or copies where links fail.

    Args:
        source: Folder of the data set.
        target: A new or empty folder, which appears whole or not at all.

    Raises:
        InputError: the target is not empty, the layout is not that of MSMT17, or a line of a list is invalid.
        InfrastructureError: the disk failed; no files are left.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not an empty folder; give the name of a new one.")
    train, test = _images(source, "train"), _images(source, "test")
    training = [*_read(source / "list_train.txt", train), *_read(source / "list_val.txt", train)]
    query, gallery = (list(_read(source / f"list_{part}.txt", test)) for part in ("query", "gallery"))
    for name, entries in (("train", training), ("query", query), ("gallery", gallery)):
        if not entries:
            raise InputError(f"{source}/list_{name}.txt names no image; {LAYOUT}.")
    offset = 1 + max(entry.label for entry in training)
    folders = {
        "bounding_box_train": _new_names(training, 1),
        "query": _new_names(query, 1 + offset),
        "bounding_box_test": _new_names(gallery, 1 + offset),
    }
    _link_all(folders, target)
    return ConvertResult(
        target,
        len(training),
        len(query),
        len(gallery),
        len({entry.label for entry in training}),
        len({entry.label for entry in query + gallery}),
    )


def _images(source: Path, part: str) -> Path:
    """Return the folder of the images of training or test, in either release."""
    if not source.is_dir():
        raise InputError(f"there is no folder {source}; {LAYOUT}.")
    for name in (part, f"mask_{part}_v2"):
        if (source / name).is_dir():
            return source / name
    raise InputError(f"{source} has neither {part}/ nor mask_{part}_v2/; {LAYOUT}.")


def _read(path: Path, images: Path) -> Iterator[_Entry]:
    """Yield the lines of a list, such as `0000/0000_000_01_0303morning_0008_0.jpg 0`, without empty ones."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise InputError(f"there is no {path}; {LAYOUT}.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise InputError(f"cannot read {path}: {reason}.") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _parse(line.strip(), images, f"{path}, line {number}")


def _parse(line: str, images: Path, position: str) -> _Entry:
    match = LINE.fullmatch(line)
    name = PurePosixPath(match[1]) if match else None
    if match is None or name is None or name.is_absolute() or ".." in name.parts:
        raise InputError(f"{position}: {line!r} is not an image's path below {images} and a label.")
    fields = name.stem.split("_")
    camera = int(fields[2]) if len(fields) > 2 and re.fullmatch("[0-9]{1,2}", fields[2]) else 0
    if not 1 <= camera <= CAMERAS or not has_image_suffix(name.name):
        raise InputError(
            f"{position}: {name.name!r} is not the name of a .jpg whose third field is a camera from 1 to {CAMERAS}, "
            "such as 0000_000_01_0303morning_0008_0.jpg."
        )
    if not (images / name).is_file():
        raise InputError(f"{position}: there is no image {images / name}; unpack the data set again.")
    return _Entry(images / name, int(match[2]), camera, position)


def _new_names(entries: list[_Entry], offset: int) -> dict[str, Path]:
    """Return the file of each entry by its new name; `offset` is added to the labels."""
    files: dict[str, Path] = {}
    for entry in entries:
        name = f"{entry.label + offset:05d}_c{entry.camera:02d}_{entry.path.name}"
        if name in files:
            raise InputError(f"{entry.line}: the image {entry.path.name} of label {entry.label} was listed before.")
        files[name] = entry.path
    return files


def _link_all(folders: dict[str, dict[str, Path]], target: Path) -> None:
    """Link all files in a temporary folder next to the target, then rename it."""
    target = target.resolve()
    make_folder(target.parent)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
            staged = Path(temporary, "staged")
            for folder, files in folders.items():
                (staged / folder).mkdir(parents=True)
                for name, path in files.items():
                    _link(path, staged / folder / name)
            os.replace(staged, target)
    except OSError as error:
        raise InfrastructureError(f"cannot write {target}: {error.strerror}; choose another folder.") from error


def _link(path: Path, name: Path) -> None:
    try:
        # The resolved file: a hard link to a relative symbolic link would point elsewhere from its new folder.
        os.link(path.resolve(), name)
    except OSError:
        shutil.copyfile(path, name)
