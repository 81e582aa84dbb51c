"""The task `convert`: a data set of another layout as folders with Market-1501 names."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reid_tune.data.records import EXTENSIONS
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import make_folder

__all__ = ["ConvertResult", "convert_msmt17"]

CAMERAS = 15
LINE = re.compile(r"(\S+)\s+(\d{1,9})", re.ASCII)
LAYOUT = (
    "an MSMT17 folder holds list_train.txt, list_val.txt, list_query.txt and list_gallery.txt beside train/ and test/ "
    "(or mask_train_v2/ and mask_test_v2/)"
)


@dataclass(frozen=True)
class ConvertResult:
    """Images in the three folders, and the people of training and test."""

    target: Path
    train: int
    query: int
    gallery: int
    identities: int
    test_identities: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of a list: an image, its label, its camera; `line` says where it stands."""

    path: Path
    label: int
    camera: int
    line: str


def convert_msmt17(source: Path, target: Path) -> ConvertResult:
    """Lay MSMT17 (Wei et al. 2018) out as `bounding_box_train` (its train and val lists), `query`, `bounding_box_test`.

    The whole data set has 32,621 training images of 1,041 people, 11,659 queries and 82,161 gallery images of 3,060
    others, of 15 cameras. An image gets the name `00001_c01_<its own name>`. An identity is the label + 1, as 0 would
    be a distractor; the test's, whose labels begin at 0 again, follow the largest of training. Images are hard links
    to the source, and copies where links fail.

    Args:
        target: a new or empty folder, which appears whole or not at all.

    Raises:
        InputError: the target is not empty, the layout is another one, or a line of a list is wrong.
        InfrastructureError: the disk failed on the way; nothing was left behind.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not an empty folder; give the name of a new one.")
    train, test = _images(source, "train"), _images(source, "test")
    people = [*_read(source / "list_train.txt", train), *_read(source / "list_val.txt", train)]
    query, gallery = (list(_read(source / f"list_{part}.txt", test)) for part in ("query", "gallery"))
    for name, entries in (("train", people), ("query", query), ("gallery", gallery)):
        if not entries:
            raise InputError(f"{source}/list_{name}.txt names no image; {LAYOUT}.")
    shift = 1 + max(entry.label for entry in people)
    folders = {
        "bounding_box_train": _named(people, 1),
        "query": _named(query, 1 + shift),
        "bounding_box_test": _named(gallery, 1 + shift),
    }
    _lay_out(folders, target)
    return ConvertResult(
        target,
        len(people),
        len(query),
        len(gallery),
        len({entry.label for entry in people}),
        len({entry.label for entry in query + gallery}),
    )


def _images(source: Path, part: str) -> Path:
    """The folder of the images of training or test, in either release."""
    if not source.is_dir():
        raise InputError(f"there is no folder {source}; {LAYOUT}.")
    for name in (part, f"mask_{part}_v2"):
        if (source / name).is_dir():
            return source / name
    raise InputError(f"{source} has neither {part}/ nor mask_{part}_v2/; {LAYOUT}.")


def _read(path: Path, images: Path) -> Iterator[_Entry]:
    """The lines of a list, such as `0000/0000_000_01_0303morning_0008_0.jpg 0`, empty ones passed over."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no {path}; {LAYOUT}.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise InputError(f"cannot read {path}: {reason}.") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _parse(line.strip(), images, f"{path}, line {number}")


def _parse(line: str, images: Path, where: str) -> _Entry:
    match = LINE.fullmatch(line)
    name = PurePosixPath(match[1]) if match else None
    if match is None or name is None or name.is_absolute() or ".." in name.parts:
        raise InputError(f"{where}: {line!r} is not an image's path below {images} and a label.")
    fields = name.stem.split("_")
    camera = int(fields[2]) if len(fields) > 2 and re.fullmatch("[0-9]{1,2}", fields[2]) else 0
    if not 1 <= camera <= CAMERAS or name.suffix.lower() not in EXTENSIONS:
        raise InputError(
            f"{where}: {name.name!r} is not the name of a .jpg whose third field is a camera from 1 to {CAMERAS}, such "
            "as 0000_000_01_0303morning_0008_0.jpg."
        )
    if not (images / name).is_file():
        raise InputError(f"{where}: there is no image {images / name}; unpack the data set again.")
    return _Entry(images / name, int(match[2]), camera, where)


def _named(entries: list[_Entry], shift: int) -> dict[str, Path]:
    """New name and file of each entry; `shift` is added to the labels."""
    files: dict[str, Path] = {}
    for entry in entries:
        name = f"{entry.label + shift:05d}_c{entry.camera:02d}_{entry.path.name}"
        if name in files:
            raise InputError(f"{entry.line}: the image {entry.path.name} of label {entry.label} was listed before.")
        files[name] = entry.path
    return files


def _lay_out(folders: dict[str, dict[str, Path]], target: Path) -> None:
    """Link all files beside the target, then rename the whole."""
    target = target.resolve()
    make_folder(target.parent)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
            whole = Path(temporary, "whole")
            for folder, files in folders.items():
                (whole / folder).mkdir(parents=True)
                for name, path in files.items():
                    _link(path, whole / folder / name)
            os.replace(whole, target)
    except OSError as error:
        raise InfrastructureError(f"cannot write {target}: {error.strerror}; choose another place.") from error


def _link(path: Path, name: Path) -> None:
    try:
        # The file itself: a link to a symbolic link would lead elsewhere from its new place.
        os.link(path.resolve(), name)
    except OSError:
        shutil.copyfile(path, name)
