"""Sentences about files of a folder that are left out: how many, an example, and what to do."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reid_tune.data.file_names import NAME_FORMAT, explain_name, has_image_suffix, parse_name
from reid_tune.data.listing import POSSIBLE_IMAGES, Reason, count_images_below
from reid_tune.errors import InputError
from reid_tune.files import display_name

__all__ = [
    "abbreviate",
    "count_left_out",
    "describe_left_out",
    "explain_unusable",
    "left_out_phrase",
    "reason_phrase",
    "remedy",
    "require_complete",
]

LeftOut = Mapping[Reason, Sequence[str]]

# After a number: for one file, and for several if that differs.
_PHRASES = {
    Reason.NAME: ("whose name does not parse", "whose names do not parse"),
    Reason.FORMAT: ("of another image format",),
    Reason.SUBFOLDER: ("in a sub-folder", "in sub-folders"),
    Reason.NOT_REGULAR: ("not a regular file", "not regular files"),
    Reason.SUFFIX: ("not an image", "not images"),
    Reason.SYSTEM: ("hidden or system file", "hidden or system files"),
    Reason.JUNK: ("of junk (identity -1)",),
    Reason.DISTRACTOR: ("of distractors (identity 0)",),
    Reason.UNLISTED: ("in none of the lists of dataset.validation",),
    Reason.UNREADABLE: ("unreadable",),
}
_EXAMPLES = 3
# Names of folders of images in Market-1501 and data sets with its layout.
_KNOWN_FOLDERS = ("bounding_box_train", "bounding_box_test", "query", "image_train", "train", "gallery", "test")


def reason_phrase(reason: Reason, count: int) -> str:
    """Return a reason as a phrase that follows a number of files."""
    return _PHRASES[reason][0 if count == 1 else -1]


def left_out_phrase(reason: Reason, count: int, example: str | None = None) -> str:
    """Return a number of files with the reason and an example, such as `2 not images, such as 'notes.txt'`."""
    phrase = f"{count:,} {reason_phrase(reason, count)}"
    if example is None:
        return phrase
    shown = f"{example}/" if reason is Reason.SUBFOLDER else example
    return f"{phrase}, {'' if count == 1 else 'such as '}'{display_name(shown)}'"


def count_left_out(path: Path, left_out: LeftOut) -> dict[Reason, int]:
    """Return the number of files by reason, without zeros; of a sub-folder the images in it, at any depth.

    Args:
        path: The folder.
        left_out: Names of its files by reason.
    """
    counts = {reason: len(names) for reason, names in left_out.items()}
    if Reason.SUBFOLDER in counts:
        counts[Reason.SUBFOLDER] = sum(count_images_below(path / name) for name in left_out[Reason.SUBFOLDER])
    return {reason: count for reason, count in counts.items() if count}


def describe_left_out(path: Path, left_out: LeftOut) -> list[str]:
    """Return a phrase with number and example for each reason of a folder."""
    counts = count_left_out(path, left_out)
    return [left_out_phrase(reason, count, left_out[reason][0]) for reason, count in counts.items()]


def remedy(path: Path, left_out: LeftOut, reason: Reason) -> str:
    """Return what to do about the files that are left out for a reason.

    Args:
        path: The folder.
        left_out: Names of its files by reason.
        reason: One of `POSSIBLE_IMAGES`.
    """
    if reason is Reason.NAME:
        hints = ((name, explain_name(name)) for name in left_out[reason])
        name, hint = next(((name, hint) for name, hint in hints if hint), ("", ""))
        return f"rename them to {NAME_FORMAT}" + (f" ('{display_name(name)}' looks like {hint})" if hint else "")
    if reason is Reason.FORMAT:
        return "save them as PNG or JPEG, with the ending .png or .jpg"
    if reason is Reason.SUBFOLDER:
        return _subfolder_remedy(path, left_out[reason])
    return "remove them, as reading a pipe or a device may never end"


def explain_unusable(path: Path, left_out: LeftOut) -> str:
    """Return the message about a folder without a usable image: what it has, and what to do."""
    problem = f"no usable image in {display_name(path)}"
    content = ", ".join(describe_left_out(path, left_out))
    if not content:
        content = "it has sub-folders without images" if left_out else "it is empty"
        return f"{problem}: {content}; image names must be {NAME_FORMAT}."
    counts = count_left_out(path, left_out)
    main = max(counts, key=lambda reason: counts[reason])
    advice = remedy(path, left_out, main) if main in POSSIBLE_IMAGES else f"image names must be {NAME_FORMAT}"
    return f"{problem} ({content}); {advice}."


def require_complete(path: Path, left_out: LeftOut) -> None:
    """Reject files that may be images and are left out, as `dataset.strict` demands.

    Raises:
        InputError: There is such a file.
    """
    counts = {reason: n for reason, n in count_left_out(path, left_out).items() if reason in POSSIBLE_IMAGES}
    if counts:
        content = "; ".join(left_out_phrase(reason, count, left_out[reason][0]) for reason, count in counts.items())
        raise InputError(
            f"dataset.strict: {display_name(path)} has files that would be left out ({content}): "
            f"{remedy(path, left_out, next(iter(counts)))}, or set dataset.strict=false."
        )


def abbreviate(names: Sequence[str]) -> str:
    """Return the first names, as they can be printed, and the number of the others."""
    suffix = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return ", ".join(map(display_name, names[:_EXAMPLES])) + suffix


def _subfolder_remedy(path: Path, names: Sequence[str]) -> str:
    """Return what to do about images in sub-folders: name one of these, or move and rename the images."""
    if layout := next(_known_folders(path, names), None):
        return f"name the folder with the images itself, such as {display_name(layout)}"
    subfolder, name = next(_image_names(path, names), ("", ""))
    if parse_name(name):
        return f"name the folder with the images itself, such as {display_name(path / subfolder)}, or move them up"
    move = "a data set is one flat folder: move the images up"
    if re.fullmatch(r"-?\d{1,12}", subfolder):
        example = display_name(os.path.join(subfolder, name))
        return (
            f"{move}, with identity and camera in the names, such as {subfolder}_c1_{display_name(name)} for {example}"
        )
    return f"{move}, with names {NAME_FORMAT}"


def _known_folders(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield folders with the name of a part of a data set, one or two levels below a folder."""
    for parent in (path, *(path / name for name in names[:_EXAMPLES])):
        yield from (parent / name for name in _KNOWN_FOLDERS if (parent / name).is_dir())


def _image_names(path: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield sub-folder and name of the images directly in sub-folders."""
    for subfolder in names:
        try:
            yield from ((subfolder, name) for name in sorted(os.listdir(path / subfolder)) if has_image_suffix(name))
        except OSError:
            continue
