from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import decode_images, decode_readable, load_image
from reid_tune.data.records import ImageRecord
from reid_tune.errors import InputError

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(path: Path, mode: str) -> ImageRecord:
    image = Image.fromarray(noise(50, 21, 3)).convert("RGB")
    if mode == "RGBA":
        image.putalpha(Image.fromarray(noise(50, 21)))
    else:
        image = image.convert(mode)
    image.save(path)
    return ImageRecord(path, 1, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("RGB", "jpg"), ("L", "jpg"), ("RGBA", "png"), ("P", "png")]
)
def test_decode_is_pillows_conversion_and_resize(tmp_path: Path, mode: str, suffix: str, interpolation: str) -> None:
    record = saved(tmp_path / f"a.{suffix}", mode)
    images = decode_images([record], ImageSpec(32, 16, interpolation))
    expected = Image.open(record.path).convert("RGB").resize((16, 32), FILTERS[interpolation])
    assert images.dtype == np.uint8 and images.shape == (1, 32, 16, 3)
    np.testing.assert_array_equal(images[0], np.asarray(expected))
    if mode == "L":
        assert (images[..., 0] == images[..., 2]).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "png")])
def test_grey_is_pillows_luma_in_three_equal_channels(
    tmp_path: Path, mode: str, suffix: str, interpolation: str
) -> None:
    record = saved(tmp_path / f"a.{suffix}", mode)
    images = decode_images([record], ImageSpec(32, 16, interpolation, 1))
    expected = Image.open(record.path).convert("L").resize((16, 32), FILTERS[interpolation])
    assert images.dtype == np.uint8 and images.shape == (1, 32, 16, 3)
    for channel in range(3):
        np.testing.assert_array_equal(images[0, ..., channel], np.asarray(expected))
    np.testing.assert_array_equal(images[0], load_image(record.path, ImageSpec(32, 16, interpolation, 1)))


def test_order_holds_with_threads_and_a_given_array(tmp_path: Path) -> None:
    records = []
    for value in range(40):
        path = tmp_path / f"{value:04d}_c1.png"
        Image.new("RGB", (5, 9), (value, 0, 255 - value)).save(path)
        records.append(ImageRecord(path, value, 1))
    out = np.zeros((40, 8, 4, 3), np.uint8)
    assert decode_images(records, ImageSpec(8, 4, "bilinear"), threads=7, out=out) is out
    np.testing.assert_array_equal(out[:, 3, 2, 0], np.arange(40))
    np.testing.assert_array_equal(out, decode_images(records, ImageSpec(8, 4, "bilinear"), threads=1))


def test_broken_files_are_named(tmp_path: Path) -> None:
    good = saved(tmp_path / "0001_c1.jpg", "RGB")
    content = good.path.read_bytes()
    broken = {"0002_c1.jpg": content[: len(content) // 2], "0003_c1.jpg": b"no image", "0004_c1.png": b""}
    for name, part in broken.items():
        (tmp_path / name).write_bytes(part)
        with pytest.raises(InputError, match=name):
            decode_images([good, ImageRecord(tmp_path / name, 2, 1), good], ImageSpec(8, 4, "bilinear"), threads=2)
    with pytest.raises(InputError, match="no image .*gone.jpg"):
        load_image(tmp_path / "gone.jpg", ImageSpec(8, 4, "bicubic"))


def test_truncated_png_is_named(tmp_path: Path) -> None:
    record = saved(tmp_path / "0005_c1.png", "RGB")
    content = record.path.read_bytes()
    for length in (20, 40, len(content) // 2, len(content) - 30):
        record.path.write_bytes(content[:length])
        with pytest.raises(InputError, match="0005_c1.png"):
            load_image(record.path, ImageSpec(8, 4, "bilinear"))


def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    records = [ImageRecord(tmp_path / f"{number}.png", number, 1) for number in range(4)]
    for record in records[1:3]:
        Image.new("RGB", (4, 8), (record.identity, 7, 7)).save(record.path)
    records[3].path.write_bytes(b"no image")
    left, crops, faults = decode_readable(records, ImageSpec(8, 4, "bilinear"))
    assert left == records[1:3] and crops.dtype == np.uint8
    assert [tuple(crop[0, 0]) for crop in crops] == [(1, 7, 7), (2, 7, 7)]
    assert faults[0].startswith(f"there is no image {records[0].path}") and str(records[3].path) in faults[1]
    left, crops, faults = decode_readable(records[3:], ImageSpec(8, 4, "bilinear"))
    assert (left, crops.shape, len(faults)) == ([], (0, 8, 4, 3), 1)
