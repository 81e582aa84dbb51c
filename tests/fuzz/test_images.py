"""Damaged image files: each becomes a picture or one sentence."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reid_tune.data.image_file import MAX_PIXELS, ImageError

from ..data.image_files import exif, noise, png, read_image_with_traits, saved, tiff
from .mutations import fuzz, mutate, one_input, seeds


def image_files() -> list[bytes]:
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


SEEDS = image_files()


@pytest.mark.parametrize("content", SEEDS)
def test_the_seeds_are_images(tmp_path: Path, content: bytes) -> None:
    Image.open(io.BytesIO(content)).load()


@fuzz(300)
@given(content=st.sampled_from(SEEDS), seed=seeds)
def test_a_damaged_file_is_a_picture_or_a_sentence(tmp_path: Path, content: bytes, seed: int) -> None:
    path = tmp_path / "0001_c1.jpg"
    path.write_bytes(mutate(content, seed))
    with one_input(path, errors=(ImageError,)):
        image, traits = read_image_with_traits(path, "L" if seed % 2 else "RGB")
        assert image.mode in ("RGB", "L") and image.size == (traits.width, traits.height)
        assert 0 < image.width * image.height <= MAX_PIXELS and image.tobytes()
