"""What the names of files say: images, other formats, names of other data sets."""

import pytest

from reid_tune.data.file_names import (
    IMAGE_SUFFIXES,
    explain_name,
    has_image_suffix,
    is_other_image,
    is_system_name,
    parse_name,
)


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".JPG", ".Tif", ".WEBP", ".PNG"])
def test_images_of_every_accepted_ending(suffix: str) -> None:
    assert has_image_suffix(f"0001_c1{suffix}") and not is_other_image(f"0001_c1.x{suffix[1:]}x.txt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0001_c1.gif", True),
        ("photo.HEIC", True),
        ("a.jfif", True),
        ("a.ppm", True),
        ("a.jp2", True),
        ("0001_c1", True),  # without an ending
        ("photo.CR3", True),
        ("0001_c1.jpg_large", False),
        ("0001_c1.jpg.bak", False),
        ("0001_c1_a.jpg~", False),
        ("0001_c1_a.jpg.part", False),
        ("0001_c1_a.xmp", False),
        ("0001_c1_a.mp4", False),
        ("0001_c1_a.AVI", False),
        ("0001_c1_a.onnx", False),
        ("0001_c1_a.swp", False),
        ("0001_c1_a.crdownload", False),
        ("0001_c1.txt", False),
        ("0001_c1.json", False),
        ("0001_c1.npy", False),
        ("readme.md", False),
        ("labels", False),
        ("0001.xml", False),
    ],
)
def test_files_that_may_be_images(name: str, expected: bool) -> None:
    assert not has_image_suffix(name) and is_other_image(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Thumbs.db", True),
        ("thumbs.DB", True),
        (".DS_Store", True),
        ("._0001_c1.jpg", True),
        ("desktop.ini", True),
        ("__MACOSX", True),
        ("@eaDir", True),
        (".git", True),
        ("0001_c1.jpg", False),
        ("db.txt", False),
    ],
)
def test_files_of_the_system(name: str, expected: bool) -> None:
    assert is_system_name(name) == expected


@pytest.mark.parametrize(
    ("name", "data_set", "renamed"),
    [
        ("0000_000_01_0303morning_0008_0.jpg", "MSMT17", ""),
        ("0007_012_15_0113noon_0123_1.jpg", "MSMT17", ""),
        ("0065C1T0002F016.jpg", "MARS", "0065_c1_0065C1T0002F016.jpg"),
        ("001_1_c11_015784.png", "LTCC", "001_c11_001_1_c11_015784.png"),
        ("1_001_1_01.png", "CUHK03", "001_c1_1_001_1_01.png"),
        ("0002_C1S1_000451.jpg", "nearly right", "0002_c1_0002_C1S1_000451.jpg"),
        ("0002-c1.jpg", "nearly right", "0002_c1_0002-c1.jpg"),
        ("0002_cam3.jpg", "nearly right", "0002_c3_0002_cam3.jpg"),
        ("cam1_person001_00317.png", "camera first", "001_c1_cam1_person001_00317.png"),
        ("c2_0005_1.jpg", "camera first", "0005_c2_c2_0005_1.jpg"),
        ("000_45.bmp", "without the letter c", "000_c45_000_45.bmp"),
        ("0001-02-03-04.jpg", "without the letter c", "0001_c02_0001-02-03-04.jpg"),
        ("0001.jpg", "a number only", ""),
    ],
)
def test_names_of_other_data_sets_are_recognised(name: str, data_set: str, renamed: str) -> None:
    assert parse_name(name) is None
    text = explain_name(name)
    assert data_set in text and (not renamed or text.endswith(f"renamed {renamed}"))
    if renamed:
        identity, camera = parse_name(renamed) or (None, None)
        assert f"{identity}" in name and f"{camera}" in name


@pytest.mark.parametrize(
    "name",
    [
        "1234567890123_c1.jpg",
        "-1234567890123_c1.jpg",
        "0001_c1234567890.jpg",
        "1234567890123-c1.jpg",
        "0001_C1234567890_0.jpg",
        "cam1234567890_0001.jpg",
        "c1_1234567890123.jpg",
        "1234567890123_1.jpg",
        "1234567890123C1T0002F016.jpg",
    ],
)
def test_numbers_with_too_many_digits(name: str) -> None:
    """A new name is recommended only if it parses."""
    assert parse_name(name) is None
    assert explain_name(name).endswith("an identity has at most 12 digits and a camera 9")


@pytest.mark.parametrize("name", ["person.jpg", "IMG_1234.jpg", "a b.png", "--1_c1.jpg", "größe.png"])
def test_other_names_say_nothing(name: str) -> None:
    assert parse_name(name) is None and explain_name(name) == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0001_c2_f0046182.jpg", (1, 2)),  # DukeMTMC
        ("0002_c002_00030600_0.jpg", (2, 2)),  # VeRi-776
        ("-1_c1s1_000401_03.jpg", (-1, 1)),
        ("0000_c6s1_000001_00.jpg", (0, 6)),
    ],
)
def test_names_of_data_sets_with_this_form(name: str, expected: tuple[int, int]) -> None:
    assert parse_name(name) == expected
