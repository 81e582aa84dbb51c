"""The one place where image files are opened: which files are read, and how they become upright 8-bit images.

- Only regular files, so that a pipe or a device among the images cannot block a run.
- JPEG, PNG, BMP, WEBP and TIFF by their content, whatever the file name says. Other decoders of Pillow stay unused:
  its PostScript decoder would start another program.
- At most `MAX_BYTES`, `MAX_PIXELS` and `MAX_SIDE`. A file of some kilobytes can unpack to gigabytes.
- Turned by the EXIF orientation, as photo viewers do.
- 16-bit colour by its upper 8 bits: its range is the full one by convention. Grey values of more than 8 bits and floats
  are refused, because the range that they use is not known. A thermal camera may fill 7,000 to 12,000 of 65,535, of
  which the upper 8 bits keep 20 grey levels, and a range for each image would remove the differences between images.
- Without transparency: the colours below it are kept, as in OpenCV and TAO.
- The first image of a file with several.
"""

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from reid_tune.data.pixel_budget import PixelBudget
from reid_tune.errors import InputError
from reid_tune.files import display_name

__all__ = ["ImageError", "ImageTraits", "content_digest", "describe_error", "open_image"]

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
MAX_BYTES, MAX_PIXELS, MAX_SIDE = 200_000_000, 50_000_000, 20_000

_PIXELS = PixelBudget(64_000_000)  # of all threads; about 8 bytes of memory each
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_BITS_PER_SAMPLE = 258  # tag of a TIFF
_METADATA = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # names of Pillow for what has an orientation
_BLOCK_BYTES = 1 << 16

# Pillow warns of odd metadata, which do not matter here, and of sizes that are refused here.
warnings.filterwarnings("ignore", module=r"PIL\.")
# glibc returns blocks of more than 32 MB at once. Of smaller ones each thread would keep those of its largest image:
# 1.6 GB with 8 threads and images of 49 megapixels, instead of 0.3 GB.
Image.core.set_block_size(1 << 26)  # type: ignore[attr-defined]


class ImageError(InputError):
    """An image file that cannot be used; equal faults of several files have equal reasons.

    Attributes:
        reason: What is wrong, without the path.
        remedy: What to do.
    """

    reason = ""
    remedy = ""


class ImageTraits(NamedTuple):
    """Properties of an image file that a user should know of before training.

    Attributes:
        width, height: Size in pixels of the upright image.
        is_turned: Whether its EXIF orientation turns or mirrors it; a client that ignores EXIF sees another image.
        has_16_bits: Whether the file has 16 bits for each channel of colour, of which the upper 8 are used.
        has_transparency: Whether it has transparency, which is ignored.
        has_frames: Whether the file has further images, which are ignored; preview images of a JPEG do not count.
    """

    width: int
    height: int
    is_turned: bool
    has_16_bits: bool
    has_transparency: bool
    has_frames: bool


@contextmanager
def open_image(path: Path | str, mode: Literal["RGB", "L"] = "RGB") -> Iterator[tuple[Image.Image, ImageTraits]]:
    """Yield the upright 8-bit image of a file, and the traits of the file.

    While the block uses a large image, other threads may wait to decode another one.

    Args:
        path: The file.
        mode: `RGB`, or `L` for luma (ITU-R BT.601).

    Raises:
        ImageError: The file is missing, not a regular file, not an image, truncated, too large or of a kind that is
            refused (see the module).
    """
    held = 0
    try:
        try:
            with _open_regular(path) as file, Image.open(file, formats=FORMATS) as stored:
                _check_form(path, stored)
                held = _PIXELS.acquire(stored.width * stored.height)
                decoded = _decode(stored, mode)
            del stored  # frees the pixels that were converted
        except Exception as error:
            raise _image_error(path, error) from None
        yield decoded
    finally:
        _PIXELS.release(held)


def content_digest(path: Path) -> bytes:
    """Return the BLAKE2b hash of a file's bytes, 16 bytes.

    Raises:
        ImageError: The file cannot be read, or is not a regular file.
    """
    digest = blake2b(digest_size=16)
    try:
        with _open_regular(path, buffering=0) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise _image_error(path, error) from None
    return digest.digest()


def describe_error(error: BaseException) -> str:
    """Return the message of a decoder's or the disk's error, in a form that fits into a sentence."""
    if isinstance(error, OSError) and error.errno == errno.ENXIO:
        return "it is a socket or a device"
    if isinstance(error, UnidentifiedImageError):
        return f"it is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return message.rstrip(".") or type(error).__name__


def _image_error(path: Path | str, error: Exception) -> ImageError:
    """Return the error to raise for what Pillow or the disk has raised; Pillow raises many types on damaged files."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, FileNotFoundError):
        missing = ImageError(f"there is no image {display_name(path)}; check the data set.")
        missing.reason, missing.remedy = "there is no such file", "check the data set"
        return missing
    return _too_large(path) if isinstance(error, Image.DecompressionBombError) else _error(path, describe_error(error))


def _error(path: Path | str, reason: str, remedy: str = "replace or remove the file") -> ImageError:
    error = ImageError(f"cannot read the image {display_name(path)}: {reason}; {remedy}.")
    error.reason, error.remedy = reason, remedy
    return error


def _too_large(path: Path | str) -> ImageError:
    limits = f"{MAX_PIXELS // 10**6} megapixels, {MAX_SIDE:,} pixels on a side and {MAX_BYTES // 10**6} MB"
    return _error(path, f"it exceeds a limit of images ({limits})", "replace it by a smaller image or remove it")


def _open_regular(path: Path | str, buffering: int = -1) -> BinaryIO:
    # Without O_NONBLOCK the call would wait for the writer of a named pipe.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    state = os.fstat(handle)
    if stat.S_ISREG(state.st_mode) and state.st_size <= MAX_BYTES:
        return open(handle, "rb", buffering)
    os.close(handle)
    if stat.S_ISREG(state.st_mode):
        raise _too_large(path)
    raise _error(path, f"it is {_KINDS.get(stat.S_IFMT(state.st_mode), 'not a regular file')}", "remove it")


def _check_form(path: Path | str, image: ImageFile) -> None:
    """Refuse images that are too large, and grey values whose range is not known."""
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise _too_large(path)
    if image.mode.startswith(("I", "F")) or _raw_mode(image) == "LA;16B":
        numbers = "are floating-point numbers" if image.mode == "F" else f"have {_bits(image)} bits"
        raise _error(
            path,
            f"its grey values {numbers}, and the range that they use is not known",
            "scale all images of the data set to 8 bits by one range",
        )


def _decode(stored: ImageFile, mode: Literal["RGB", "L"]) -> tuple[Image.Image, ImageTraits]:
    is_wide, has_frames = _bits(stored) > 8, stored.format != "MPO" and getattr(stored, "is_animated", False)
    orientation = _load(stored)
    upright: Image.Image = stored
    if orientation in _TURNS and stored.format != "TIFF":  # Pillow has turned a TIFF
        upright = stored.transpose(_TURNS[orientation])
    traits = ImageTraits(*upright.size, orientation in _TURNS, is_wide, stored.has_transparency_data, has_frames)
    # The pixels of a loaded image stay when its file is closed; a copy would double the memory.
    return upright if upright.mode == mode else upright.convert(mode), traits


def _bits(image: ImageFile) -> int:
    """Return the bits of a channel in the file; 8 also if they are fewer, except for a TIFF."""
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,)))
    return 16 if _raw_mode(image).endswith(";16B") else 8


def _raw_mode(image: ImageFile) -> str:
    """Return the layout of a PNG's pixels in the file, such as `RGB;16B`; empty for other formats."""
    return str(image.tile[0].args) if image.format == "PNG" and image.tile else ""


def _load(image: ImageFile) -> int:
    """Decode an image, and return the EXIF orientation 1 to 8 that it had before; 1 if it has none that is valid."""
    # The orientation of a PNG may follow its pixels; that of a TIFF is dropped when Pillow turns it.
    if image.format != "TIFF":
        image.load()
        if _METADATA.isdisjoint(image.info):  # most images; looking into absent metadata takes a hundredth of decoding
            return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata of a good image
        orientation = 1
    image.load()
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1
