"""Which picture an image file becomes: orientation, colours, bits, frames."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reid_tune
from reid_tune.data.contact_sheet import draw_contact_sheet
from reid_tune.data.image_cache.cache import load_cached_images
from reid_tune.data.image_file import ImageError
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import decode_images, decode_readable, try_load_image
from reid_tune.data.records import ImageRecord

from .image_files import (
    HEIGHT,
    WIDTH,
    chunk,
    exif,
    noise,
    png,
    read_image,
    read_image_with_traits,
    saved,
    tiff,
    written,
)

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest shows what the module hides


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The picture pixel by pixel: EXIF says on which sides the first stored row and the first stored column are."""
    first_row, first_column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    rows, columns = pixels.shape[:2]
    swapped = first_row in ("left", "right")
    picture = np.empty((columns, rows, 3) if swapped else (rows, columns, 3), np.uint8)
    for row in range(rows):
        for column in range(columns):
            distances = {first_row: row, first_column: column}
            y = distances["top"] if "top" in distances else len(picture) - 1 - distances["bottom"]
            x = distances["left"] if "left" in distances else len(picture[0]) - 1 - distances["right"]
            picture[y, x] = pixels[row, column]
    return picture


def xmp(orientation: int) -> bytes:
    return b'<rdf:Description tiff:Orientation="%d"/>' % orientation


WRITERS: dict[str, Callable[[np.ndarray, int], bytes]] = {
    "JPEG": lambda pixels, turn: saved(Image.fromarray(pixels), "JPEG", exif=exif(turn), quality=95),
    "JPEG, big-endian EXIF": lambda pixels, turn: saved(Image.fromarray(pixels), "JPEG", exif=exif(turn, order=">")),
    "JPEG, XMP": lambda pixels, turn: saved(Image.fromarray(pixels), "JPEG", xmp=xmp(turn)),
    "PNG": lambda pixels, turn: saved(Image.fromarray(pixels), "PNG", exif=exif(turn)[6:]),
    "PNG, EXIF after the pixels": lambda pixels, turn: png(pixels, extra=chunk(b"eXIf", exif(turn)[6:])),
    "WEBP": lambda pixels, turn: saved(Image.fromarray(pixels), "WEBP", lossless=True, exif=exif(turn)[6:]),
    "TIFF": lambda pixels, turn: tiff(pixels, orientation=turn),
    "TIFF, big-endian": lambda pixels, turn: tiff(pixels, order=">", orientation=turn),
    "TIFF, compressed": lambda pixels, turn: saved(
        Image.fromarray(pixels), "TIFF", compression="tiff_lzw", tiffinfo={274: turn}
    ),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", WRITERS)
def test_an_image_is_turned_by_its_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    plain = np.asarray(Image.open(written(tmp_path, WRITERS[kind](noise(), 1))))
    image, traits = read_image_with_traits(written(tmp_path, WRITERS[kind](noise(), orientation)))
    np.testing.assert_array_equal(np.asarray(image), upright(plain, orientation))
    assert (traits.width, traits.height) == image.size == ((WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH))
    assert traits.is_turned == (orientation != 1)


@pytest.mark.parametrize(
    "data",
    [
        exif(0),
        exif(9),
        exif(65535),
        exif(6, kind=2),  # as text
        exif(6, kind=5),  # a fraction at an offset that does not exist
        exif(6, kind=77),
        exif(6)[:20],
        exif(6)[:8],
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0no TIFF",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(30),
    ],
)
def test_metadata_without_a_valid_orientation_change_nothing(tmp_path: Path, data: bytes) -> None:
    expected = np.asarray(Image.open(written(tmp_path, saved(Image.fromarray(noise()), "JPEG"))))
    with warnings.catch_warnings(record=True) as printed:
        image, traits = read_image_with_traits(
            written(tmp_path, saved(Image.fromarray(noise()), "JPEG", exif=data)), "RGB"
        )
    np.testing.assert_array_equal(np.asarray(image), expected)
    assert not traits.is_turned and all("PIL" in str(warning.filename) for warning in printed)


def test_all_readers_turn_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "crops").mkdir()
    lying = saved(Image.fromarray(noise()), "PNG", exif=exif(6)[6:])
    record = ImageRecord(written(tmp_path / "crops", lying, "0001_c1.png"), 1, 1)
    spec = ImageSpec(WIDTH, HEIGHT, "bilinear")  # of the turned image
    expected = upright(noise(), 6)
    for images in (
        decode_images([record], spec),
        load_cached_images([record], spec)[:],
        decode_readable([record], spec)[1],
        [try_load_image(record.path, spec)],
    ):
        np.testing.assert_array_equal(images[0], expected)
    draw_contact_sheet([record], tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    coloured = (sheet.max(2) - sheet.min(2) > 20).any(0), (sheet.max(2) - sheet.min(2) > 20).any(1)
    assert coloured[0].sum() > coloured[1].sum(), "wider than high"


RGB, LUMA, ALPHA, PALETTE = noise(), noise(1), noise(4)[..., 3:], noise(3)[0]
INDICES = noise(1) % WIDTH


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values, 3, axis=2)


def palette_image(**options: object) -> bytes:
    image = Image.fromarray(INDICES[..., 0], "P")
    image.putpalette(PALETTE.tobytes())
    return saved(image, "PNG", **options)


def ink(values: np.ndarray) -> np.ndarray:
    """Colours of cyan, magenta, yellow and black ink."""
    light = 255 - values.astype(int)
    return np.rint(light[..., :3] * light[..., 3:] / 255).astype(np.uint8)


MODES = {
    "grey PNG": (png(LUMA), grey(LUMA)),
    "grey TIFF": (tiff(LUMA), grey(LUMA)),
    "grey and alpha PNG": (png(np.concatenate([LUMA, ALPHA], 2)), grey(LUMA)),
    "grey and alpha TIFF": (tiff(np.concatenate([LUMA, ALPHA], 2)), grey(LUMA)),
    "RGB PNG": (png(RGB), RGB),
    "RGB TIFF": (tiff(RGB), RGB),
    "RGB BMP": (saved(Image.fromarray(RGB), "BMP"), RGB),
    "RGB WEBP": (saved(Image.fromarray(RGB), "WEBP", lossless=True), RGB),
    "RGB and alpha PNG": (png(np.concatenate([RGB, ALPHA], 2)), RGB),
    "RGB and alpha TIFF": (tiff(np.concatenate([RGB, ALPHA], 2)), RGB),
    "RGB and alpha WEBP": (
        saved(Image.fromarray(np.concatenate([RGB, ALPHA], 2)), "WEBP", lossless=True, exact=True),
        RGB,
    ),
    "palette PNG": (palette_image(), PALETTE[INDICES[..., 0]]),
    "palette PNG, one colour transparent": (palette_image(transparency=1), PALETTE[INDICES[..., 0]]),
    "palette PNG, all colours half transparent": (
        palette_image(transparency=bytes([128] * WIDTH)),
        PALETTE[INDICES[..., 0]],
    ),
    "two-level PNG": (saved(Image.fromarray(LUMA[..., 0] > 99), "PNG"), grey(np.where(LUMA > 99, 255, 0))),
    "two-level TIFF": (
        saved(Image.fromarray(LUMA[..., 0] > 99), "TIFF", compression="group4"),
        grey(np.where(LUMA > 99, 255, 0)),
    ),
    "CMYK TIFF": (saved(Image.fromarray(noise(4), "CMYK"), "TIFF"), ink(noise(4))),
    "palette BMP": (saved(Image.fromarray(LUMA[..., 0]), "BMP"), grey(LUMA)),
}


@pytest.mark.parametrize("kind", MODES)
def test_the_colours_of_each_mode(tmp_path: Path, kind: str) -> None:
    content, expected = MODES[kind]
    path = written(tmp_path, content)
    image, traits = read_image_with_traits(path)
    difference = np.abs(np.asarray(image).astype(int) - expected)
    assert image.mode == "RGB" and difference.max() <= ("CMYK" in kind), difference
    assert traits.has_transparency == ("alpha" in kind or "transparent" in kind)
    assert not traits.has_16_bits and not traits.has_frames and not traits.is_turned
    luma = np.asarray(read_image(path, "L")).astype(int)
    assert np.abs(luma - np.asarray(image) @ [0.299, 0.587, 0.114]).max() <= 1, "ITU-R BT.601"


def test_a_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    flat = np.full((32, 32, 4), [10, 200, 60, 30], np.uint8)
    image = read_image(written(tmp_path, saved(Image.fromarray(flat, "CMYK"), "JPEG", quality=100)))
    np.testing.assert_allclose(np.asarray(image)[16, 16].astype(int), ink(flat)[0, 0].astype(int), atol=3)


WIDE = {
    "RGB PNG": png(noise(3, 65536, "u2"), 16),
    "RGB TIFF": tiff(noise(3, 65536, "u2")),
    "RGB TIFF, big-endian": tiff(noise(3, 65536, "u2"), order=">"),
    "RGB and alpha PNG": png(noise(4, 65536, "u2"), 16),
    "RGB and alpha TIFF": tiff(noise(4, 65536, "u2")),
    "RGB and alpha TIFF, big-endian": tiff(noise(4, 65536, "u2"), order=">"),
}


@pytest.mark.parametrize("kind", WIDE)
def test_sixteen_bit_colour_keeps_its_upper_eight_bits(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, WIDE[kind])
    image, traits = read_image_with_traits(path)
    expected = noise(4 if "alpha" in kind else 3, 65536, "u2")[..., :3] // 256
    np.testing.assert_array_equal(np.asarray(image), expected)
    assert traits.has_16_bits


UNKNOWN_RANGES = {
    "16-bit PNG": png(noise(1, 65536, "u2"), 16),
    "16-bit PNG of a thermal camera": png(noise(1, 5000, "u2") + np.uint16(7000), 16),
    "16-bit PNG with alpha": png(noise(2, 65536, "u2"), 16),
    "16-bit TIFF": tiff(noise(1, 65536, "u2")),
    "16-bit TIFF, big-endian": tiff(noise(1, 65536, "u2"), order=">"),
    "signed 16-bit TIFF": tiff(noise(1, 9, "i2")),
    "32-bit TIFF": tiff(noise(1, 65536, "i4")),
    "32-bit TIFF, unsigned": tiff(noise(1, 65536, "u4")),
    "float TIFF": tiff(noise(1, 256, "f4")),
    "float TIFF, big-endian": tiff(noise(1, 256, "f4"), order=">"),
    "float TIFF of fractions": tiff(noise(1, 256, "f4") / np.float32(255)),
    "float TIFF of NaN": tiff(noise(1, 256, "f4") * np.float32("nan")),
    "float TIFF of compressed rows": saved(
        Image.fromarray(noise(1, 256, "f4")[..., 0]), "TIFF", compression="tiff_lzw"
    ),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", UNKNOWN_RANGES)
def test_values_of_unknown_range_are_refused(tmp_path: Path, kind: str, mode: str) -> None:
    path = written(tmp_path, UNKNOWN_RANGES[kind])
    with pytest.raises(ImageError) as error:
        read_image(path, mode)
    values = "are floating-point numbers" if "float" in kind else f"have {32 if '32' in kind else 16} bits"
    assert error.value.reason == f"its grey values {values}, and the range that they use is not known"
    assert str(error.value) == (
        f"cannot read the image {path}: {error.value.reason}; scale all images of the data set to 8 bits by one range."
    )


@pytest.mark.parametrize("content", [tiff(noise(3, 256, "f4")), tiff(noise(3, 256, "f8")), tiff(noise(1, 256, "f8"))])
def test_layouts_that_pillow_does_not_know_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ImageError, match="^cannot read the image .*: it is not a JPEG, PNG, BMP, WEBP or TIFF image; "):
        read_image(written(tmp_path, content))


def frames(kind: str, **options: object) -> bytes:
    first, *others = (Image.fromarray(np.roll(noise(), shift, 0)) for shift in range(3))
    return saved(first, kind, others, **options)


def test_the_guide_scales_thermal_images(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    values = noise(1, 5000, "u2") + np.uint16(6900)
    written(tmp_path / "raw", png(values, 16), "0001_c1.png")
    written(tmp_path / "raw", tiff(values, order=">"), "0002_c1.tiff")
    guide = (Path(reid_tune.__file__).parents[1] / "docs" / "data.md").read_text()
    program = guide.split("```python\n")[1].split("```")[0]
    arguments = [str(tmp_path / "raw"), str(tmp_path / "scaled"), "7000", "11000"]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    expected = np.rint((values.astype(float) - 7000).clip(0, 4000) / 4000 * 255)
    for path in (tmp_path / "scaled").iterdir():
        np.testing.assert_array_equal(np.asarray(read_image(path)), grey(expected))
    assert len(list((tmp_path / "scaled").iterdir())) == 2


@pytest.mark.parametrize(
    ("content", "has_frames"),
    [
        (frames("WEBP", lossless=True), True),
        (frames("PNG"), True),
        (frames("TIFF"), True),
        (frames("TIFF", compression="tiff_lzw"), True),
        (saved(Image.fromarray(noise()), "WEBP", lossless=True, save_all=True), False),
        (saved(Image.fromarray(noise()), "TIFF"), False),
        (png(noise()), False),
        (frames("TIFF", compression="tiff_deflate"), True),
    ],
)
def test_the_first_of_several_images_is_read(tmp_path: Path, content: bytes, has_frames: bool) -> None:
    image, traits = read_image_with_traits(written(tmp_path, content))
    np.testing.assert_array_equal(np.asarray(image), noise())
    assert traits.has_frames == has_frames


def test_a_phone_photo_with_a_preview_is_one_image(tmp_path: Path) -> None:
    image, traits = read_image_with_traits(written(tmp_path, frames("MPO")))
    assert image.size == (WIDTH, HEIGHT) and not traits.has_frames
