"""Contact sheet: an image with one row per identity and one picture per camera."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from reid_tune.data.image_file import open_image
from reid_tune.data.records import ImageRecord
from reid_tune.errors import InputError
from reid_tune.files import atomic_path, display_name
from reid_tune.identities import is_person

__all__ = ["choose_images", "draw_contact_sheet", "require_picture_name"]

ROWS, COLUMNS = 12, 8
CELL, PICTURE = (140, 208), (128, 160)
LETTERS = 24


def require_picture_name(path: Path) -> None:
    """Check the suffix of a contact sheet's file name.

    Raises:
        InputError: The suffix is none of .png, .jpg and .jpeg.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"the name of the contact sheet {path} must end in .png or .jpg.")


def draw_contact_sheet(records: Sequence[ImageRecord], path: Path) -> None:
    """Draw the images of `choose_images`, with file names below, into a .png or .jpg file, atomically.

    Args:
        records: Readable images, at least one of an identity above 0.
        path: The file.

    Raises:
        InputError: The suffix is not an image's, or the file cannot be written.
    """
    require_picture_name(path)
    rows = choose_images(records)
    sheet = Image.new("RGB", (CELL[0] * max(map(len, rows)), CELL[1] * len(rows)), "white")
    for row, chosen in enumerate(rows):
        for column, record in enumerate(chosen):
            sheet.paste(_cell(record.path), (column * CELL[0], row * CELL[1]))
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def choose_images(records: Sequence[ImageRecord]) -> list[list[ImageRecord]]:
    """Return up to 12 evenly spread identities above 0, each with the first image of up to 8 of its cameras."""
    cameras: dict[int, dict[int, ImageRecord]] = {}
    for record in records:
        if is_person(record.identity):
            cameras.setdefault(record.identity, {}).setdefault(record.camera, record)
    identities = sorted(cameras)
    count = min(ROWS, len(identities))
    chosen = [identities[row * len(identities) // count] for row in range(count)]
    return [[cameras[identity][camera] for camera in sorted(cameras[identity])[:COLUMNS]] for identity in chosen]


def _cell(path: Path) -> Image.Image:
    cell = Image.new("RGB", CELL, "white")
    with open_image(path) as (image, _):
        picture = ImageOps.contain(image, PICTURE)
    cell.paste(picture, ((CELL[0] - picture.width) // 2, PICTURE[1] - picture.height + 4))
    name = display_name(path.name).encode("ascii", "replace").decode()
    ImageDraw.Draw(cell).multiline_text((6, PICTURE[1] + 8), "\n".join(textwrap.wrap(name, LETTERS)[:3]), "black")
    return cell
