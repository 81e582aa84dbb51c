"""Damaged image files: each becomes a picture or one sentence, in a short time."""

import io
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from reid_tune.data.image_file import MAX_PIXELS, ImageError

from .image_files import exif, noise, png, read_image_with_traits, saved, tiff

SECONDS = 5  # of one image on a busy machine
EXTREMES = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x80\0\0\0"]


def seeds() -> list[bytes]:
    """Small files of all formats and compressions."""
    rgb = Image.fromarray(np.asarray(Image.fromarray(noise()).resize((24, 40))))
    grey, palette, alpha = rgb.convert("L"), rgb.quantize(8), rgb.convert("RGBA")
    cmyk, bits = rgb.convert("CMYK"), rgb.convert("1")
    others = [rgb.transpose(Image.Transpose.ROTATE_180)] * 2
    return [
        saved(rgb, "JPEG", exif=exif(6)),
        saved(rgb, "JPEG", progressive=True, xmp=b'<x tiff:Orientation="3"/>'),
        saved(grey, "JPEG", restart_marker_blocks=2),
        saved(cmyk, "JPEG"),
        saved(rgb, "MPO", others),
        saved(rgb, "PNG", exif=exif(3)[6:]),
        saved(palette, "PNG", transparency=b"\x10\x80"),
        saved(bits, "PNG"),
        saved(alpha, "PNG"),
        saved(rgb, "PNG", others),
        png(noise(3, 65536, "u2"), 16),
        png(noise(1, 65536, "u2"), 16),
        saved(rgb, "BMP"),
        saved(palette, "BMP"),
        saved(rgb, "WEBP", exif=exif(8)[6:]),
        saved(alpha, "WEBP", lossless=True),
        saved(rgb, "WEBP", others),
        tiff(noise(), orientation=5),
        tiff(noise(4, 65536, "u2"), order=">"),
        *(saved(rgb, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
        saved(bits, "TIFF", compression="group4"),
        saved(palette, "TIFF", tiffinfo={274: 7}),
        saved(rgb, "TIFF", others),
    ]


def overwrite(content: bytearray, at: int, draw: random.Random) -> None:
    content[at] = draw.randrange(256)


def flip(content: bytearray, at: int, draw: random.Random) -> None:
    content[at] ^= 1 << draw.randrange(8)


def extreme(content: bytearray, at: int, draw: random.Random) -> None:
    content[at : at + 4] = draw.choice(EXTREMES)


def remove(content: bytearray, at: int, draw: random.Random) -> None:
    del content[at : at + draw.randrange(1, 64)]


def repeat(content: bytearray, at: int, draw: random.Random) -> None:
    content[at:at] = content[at : at + draw.randrange(1, 64)] * draw.randrange(1, 4)


def cut(content: bytearray, at: int, draw: random.Random) -> None:
    del content[at:]


MUTATIONS: Sequence[Callable[[bytearray, int, random.Random], None]] = (
    *[overwrite, flip, extreme] * 4,
    remove,
    repeat,
    cut,
)
SEEDS = seeds()


def mutated(content: bytes, draw: random.Random) -> bytes:
    result = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 3, 8])):
        if result:
            # Headers are at the start of most formats, and at the end of a TIFF.
            last = draw.choice([min(64, len(result)), len(result)])
            at = draw.randrange(last)
            draw.choice(MUTATIONS)(result, at if draw.random() < 0.7 else len(result) - 1 - at, draw)
    return bytes(result)


@pytest.mark.parametrize("content", SEEDS)
def test_the_seeds_are_images(tmp_path: Path, content: bytes) -> None:
    Image.open(io.BytesIO(content)).load()


@pytest.mark.filterwarnings("ignore")
@given(st.integers(0, len(SEEDS) - 1), st.integers(0, 2**32))
@settings(max_examples=10 * settings().max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_a_picture_or_a_sentence(tmp_path: Path, index: int, seed: int) -> None:
    path = tmp_path / "0001_c1.jpg"
    path.write_bytes(mutated(SEEDS[index], random.Random(seed)))
    started = time.monotonic()
    try:
        image, traits = read_image_with_traits(path, "L" if seed % 2 else "RGB")
    except ImageError as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(error.reason) < 300
    else:
        assert image.mode in ("RGB", "L") and image.size == (traits.width, traits.height)
        assert 0 < image.width * image.height <= MAX_PIXELS and image.tobytes()
    assert time.monotonic() - started < SECONDS
