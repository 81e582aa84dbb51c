"""What is found in data sets with known faults."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment
from reid_tune.data.split_files import LISTS
from reid_tune.errors import InputError
from reid_tune.tasks.check_data import Report, check_data

Spec = Callable[..., Experiment]


def write(folder: Path, *names: str, size: tuple[int, int] = (16, 32)) -> Path:
    """An image of noise for each name, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        rng = np.random.default_rng(list(str(folder / name).encode()))
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(folder / name)
    return folder


def people(folder: Path, identities: range, cameras: tuple[int, ...] = (1, 2, 3)) -> Path:
    return write(folder, *(f"{identity:04d}_c{camera}_0.png" for identity in identities for camera in cameras))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set without a fault: 8 training identities, 4 of the test."""
    people(tmp_path / "train", range(1, 9))
    people(tmp_path / "query", range(11, 15), (1,))
    people(tmp_path / "gallery", range(11, 15), (2, 3))
    return tmp_path


@pytest.fixture
def spec(root: Path) -> Spec:
    def make(**values: Any) -> Experiment:
        tree = {
            "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16},
            "dataset": {
                "train_dataset_dir": str(root / "train"),
                "test_dataset_dir": str(root / "gallery"),
                "query_dataset_dir": str(root / "query"),
                "batch_size": 8,
                "num_instances": 2,
                "validation": "none",
            },
        }
        return build_experiment(tree, {key.replace("__", "."): value for key, value in values.items()}, "test")

    return make


def sentences(report: Report, severity: str) -> list[str]:
    return [finding.sentence for finding in report.findings if finding.severity == severity]


def only(report: Report, severity: str) -> str:
    """The one finding of a report that has no other."""
    assert len(report.findings) == 1, report.findings
    assert report.findings[0].severity == severity and report.has_errors == (severity == "error")
    return report.findings[0].sentence


def test_a_good_data_set_is_counted_and_has_no_finding(root: Path, spec: Spec) -> None:
    report = check_data(spec())
    assert report.findings == () and not report.has_errors
    counts = {
        "train": {"files": 24, "used": 24, "identities": 8, "cameras": 3, "distractors": 0},
        "query": {"files": 4, "used": 4, "identities": 4, "cameras": 1, "distractors": 0},
        "gallery": {"files": 8, "used": 8, "identities": 4, "cameras": 2, "distractors": 0},
    }
    assert report.rows() == counts
    subsets = {name: row | {"left_out": {}} for name, row in counts.items()}
    assert report.as_dict() == {"subsets": subsets, "findings": [], "has_errors": False}


def test_junk_distractors_and_odd_names_are_counted(root: Path, spec: Spec) -> None:
    write(root / "gallery", "-1_c1_0.png", "-1_c2_0.png", "0000_c6_0.png", "odd.png")
    report = check_data(spec())
    assert report.as_dict()["subsets"]["gallery"] == {
        "files": 12,
        "used": 9,
        "identities": 4,
        "cameras": 4,
        "distractors": 1,
        "left_out": {"name": 1, "junk": 2},
    }
    row = report.rows()["gallery"]
    assert (row["left out: name"], row["left out: junk"], report.rows()["train"]["left out: junk"]) == (1, 2, 0)
    assert only(report, "note").startswith("1 file of gallery is left out, whose name does not parse (odd.png in ")
    assert "dataset.strict does not allow" in only(check_data(spec(dataset__strict=True)), "error")


def test_identities_of_one_image_or_camera_are_noted(root: Path, spec: Spec) -> None:
    write(root / "train", "0020_c1_0.png", "0021_c2_0.png", "0021_c2_1.png")
    report = check_data(spec())
    assert not report.has_errors
    assert sentences(report, "note") == [
        "1 of 10 identities of train have a single image, so there are no pairs to compare (0020_c1_0.png).",
        "2 of 10 identities of train are seen by a single camera, so nothing is learned across cameras "
        "(0020_c1_0.png, 0021_c2_0.png).",
    ]


def test_identities_in_training_and_test_spoil(root: Path, spec: Spec) -> None:
    people(root / "train", range(13, 15))
    assert only(check_data(spec()), "error").startswith("2 identities are in train and in query or gallery: ")


def test_identities_in_training_and_a_validation_folder_spoil(root: Path, spec: Spec) -> None:
    people(root / "site" / "query", range(8, 10), (1,))
    people(root / "site" / "bounding_box_test", range(8, 10), (2,))
    report = check_data(spec(dataset__validation=str(root / "site")))
    assert only(report, "error").startswith("1 identities are in train and in validation query or validation gallery")
    assert report.rows()["validation query"]["files"] == report.rows()["validation gallery"]["files"] == 2


def test_numbers_of_an_extra_test_are_its_own_unless_it_lies_beside(root: Path, spec: Spec, tmp_path: Path) -> None:
    for place, expected in ((tmp_path / "duke", False), (root, True)):
        folders = {
            "query_dataset_dir": str(people(place / "q", range(1, 4), (1,))),
            "test_dataset_dir": str(people(place / "g", range(1, 4), (2,))),
        }
        report = check_data(spec(dataset__extra_tests=[{"name": "duke", **folders}]))
        assert report.has_errors == expected and report.rows()["duke gallery"]["files"] == 3
        assert [line[:44] for line in sentences(report, "error")] == [
            "3 identities are in train and in duke query "
        ] * expected


def test_queries_without_a_match(root: Path, spec: Spec) -> None:
    write(root / "query", "0011_c9_0.png", "0099_c1_0.png")
    write(root / "gallery", "0000_c5_0.png")
    write(root / "query", "0000_c1_0.png")
    zero, sentence = sentences(check_data(spec()), "note")
    assert sentence.startswith("1 of 7 images of query have no match, ") and "(0099_c1_0.png)" in sentence
    assert zero.startswith("query: 1 query has identity 0, which marks distractors, and is scored as images of one ")
    shutil.rmtree(root / "gallery")
    people(root / "gallery", range(11, 15), (1,))
    write(root / "query", *(f"00{identity}_c1_0.png" for identity in range(11, 15)))
    for path in (root / "query").glob("*_c9_*"):
        path.unlink()
    report = check_data(spec())
    assert "no query has a match" in sentences(report, "error")[0]
    assert not any("the score ignores" in note for note in sentences(report, "note"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda root: people(root / "gallery", range(11, 12), (2, 3)), "has identity 11, so that any embedding scores"),
        (lambda root: people(root / "gallery", range(11, 12), (2,)), "has identity 11, so that any embedding scores"),
        (lambda root: people(root / "gallery", range(11, 15), (1,)), "all images have camera 1"),
        (lambda root: people(root / "gallery", range(20, 25), (2,)), "has none of the queries' identities"),
        (lambda root: write(root / "gallery", "-1_c2_0.png"), "every gallery image is junk"),
    ],
)
@pytest.mark.parametrize("part", ["test", "validation", "extra"])
def test_a_pair_that_cannot_be_ranked(
    root: Path, spec: Spec, make: Callable[[Path], Path], sentence: str, part: str
) -> None:
    """What stops a training or an evaluation is an error here."""
    base = root if part == "test" else root / part
    values: dict[str, Any] = {}
    if part == "test":
        shutil.rmtree(root / "gallery")
    query, gallery = people(base / "query", range(11, 15), (1,)), make(base)
    if part == "validation":
        gallery.rename(base / "bounding_box_test")
        values = {"dataset__validation": str(base)}
    elif part == "extra":
        test = {"name": "extra", "query_dataset_dir": str(query), "test_dataset_dir": str(gallery)}
        values = {"dataset__extra_tests": [test]}
    prefix = "" if part == "test" else f"{part} "
    (error,) = sentences(check_data(spec(**values)), "error")
    assert error.startswith(f"{prefix}query and {prefix}gallery: ") and sentence in error


@pytest.mark.parametrize(
    ("gallery", "sentence"),
    [(("0007_c1_0.png",), "no query has a match"), (("0007_c2_0.png", "0007_c3_0.png"), "has identity 7, so that any")],
)
def test_validation_lists_that_cannot_be_ranked(
    root: Path, spec: Spec, gallery: tuple[str, ...], sentence: str
) -> None:
    lists = root / "lists"
    write(root / "train", "0007_c1_1.png")
    names = sorted(path.name for path in (root / "train").iterdir() if not path.name.startswith("0007"))
    lists.mkdir()
    for part, content in (("train", names), ("query", ["0007_c1_1.png"]), ("gallery", gallery)):
        names_file = next(name for name in LISTS if part in name)
        (lists / names_file).write_text("\n".join(str(root / "train" / name) for name in content) + "\n")
    report = check_data(spec(dataset__validation=str(lists), dataset__batch_size=4))
    (error,) = sentences(report, "error")
    assert error.startswith("validation query and validation gallery: ") and sentence in error


def test_files_of_equal_content(root: Path, spec: Spec) -> None:
    train, gallery = root / "train", root / "gallery"
    shutil.copy(train / "0001_c1_0.png", train / "0001_c1_copy.png")
    assert only(check_data(spec()), "note").startswith("1 image(s) of train exist more than once, for example ")
    shutil.move(train / "0001_c1_copy.png", train / "0002_c1_copy.png")
    sentence = only(check_data(spec()), "error")
    assert sentence.startswith("1 image(s) of train have two identities")
    assert f"{train}/0001_c1_0.png and {train}/0002_c1_copy.png." in sentence
    shutil.move(train / "0002_c1_copy.png", gallery / "0011_c4_copy.png")
    assert "1 image(s) of train are also in gallery, which inflates its score" in only(check_data(spec()), "error")
    shutil.copy(root / "query" / "0011_c1_0.png", gallery / "0011_c4_copy.png")
    assert "1 image(s) of query are also in gallery, for example" in only(check_data(spec()), "note")
    shutil.move(gallery / "0011_c4_copy.png", gallery / "0012_c4_copy.png")
    report = check_data(spec())
    assert "1 image(s) of the test have two identities" in sentences(report, "error")[0]


def test_the_same_people_in_two_training_folders_spoil(root: Path, spec: Spec) -> None:
    """Kept apart as two sets of people, though one file shows that they are the same."""
    other = people(root / "other" / "train", range(1, 4))
    folders = [str(root / "train"), str(other)]
    report = check_data(spec(dataset__train_dataset_dir=folders))
    assert report.findings == () and report.rows()["train"]["identities"] == 11
    assert report.rows()["train"]["cameras"] == 6
    shutil.copy(root / "train" / "0001_c1_0.png", other / "0001_c1_0.png")
    sentence = only(check_data(spec(dataset__train_dataset_dir=folders)), "error")
    assert sentence.startswith("1 image(s) of train have two identities")


def test_all_unreadable_files_are_named(root: Path, spec: Spec) -> None:
    whole = (root / "train" / "0001_c1_0.png").read_bytes()
    broken = {
        root / "train" / "0003_c1_0.png": b"no image",
        root / "train" / "0004_c2_0.png": whole[: len(whole) // 2],
        root / "gallery" / "0012_c2_0.png": b"",
    }
    for path, content in broken.items():
        path.write_bytes(content)
    (root / "query" / "0011_c2_gone.png").symlink_to("nowhere.png")
    report = check_data(spec())
    assert len(report.findings) == 4 and report.has_errors
    for path in (*broken, root / "query" / "0011_c2_gone.png"):
        assert any(line.startswith(f"{path} cannot be read: ") for line in sentences(report, "error")), path
    assert (
        "0003_c1_0.png cannot be read: it is not a JPEG, PNG, BMP, WEBP or TIFF image; replace"
        in report.findings[0].sentence
    )


def test_images_much_smaller_than_the_input_are_noted(root: Path, spec: Spec) -> None:
    write(root / "train", "0001_c1_a.png", size=(7, 40))
    write(root / "train", "0001_c1_b.png", size=(20, 10))
    write(root / "train", "0001_c1_c.png", size=(8, 16))
    assert only(check_data(spec()), "note") == (
        "2 of 27 images of train are less than half as wide or high as the input of 16 x 32; the smallest is "
        "0001_c1_b.png, 20 x 10."
    )


def test_too_few_identities_for_a_batch_spoil(spec: Spec) -> None:
    assert check_data(spec(dataset__batch_size=16)).findings == ()
    assert "have 8 identities, but a batch needs 9" in only(check_data(spec(dataset__batch_size=18)), "error")


def test_a_hold_out_is_shown_and_its_faults_are_findings(root: Path, spec: Spec) -> None:
    values = {"dataset__validation": "holdout", "dataset__validation_fraction": 0.3}
    report = check_data(spec(**values))
    assert report.findings == ()
    held = report.rows()["validation query"]["identities"]
    assert 0 < held < 8 and report.rows()["train"]["identities"] == 8
    sentence = only(check_data(spec(**values, dataset__batch_size=16)), "error")
    assert f"have {8 - held} identities, but a batch needs 8" in sentence
    shutil.rmtree(root / "train")
    write(root / "train", *(f"{identity:04d}_c1_{number}.png" for identity in range(1, 9) for number in (0, 1)))
    assert "all training images are of one camera" in sentences(check_data(spec(**values)), "error")[0]


def test_parts_that_are_not_given_are_left_out(root: Path, spec: Spec) -> None:
    nothing = {"dataset__test_dataset_dir": None, "dataset__query_dataset_dir": None}
    assert list(check_data(spec(**nothing)).rows()) == ["train"]
    assert list(check_data(spec(dataset__train_dataset_dir=None)).rows()) == ["query", "gallery"]
    with pytest.raises(InputError, match="no data to check"):
        check_data(spec(**nothing, dataset__train_dataset_dir=None))
    with pytest.raises(InputError, match="dataset.query_dataset_dir is not set, and a test needs both"):
        check_data(spec(dataset__query_dataset_dir=None))
    with pytest.raises(InputError, match="no folder .*nowhere"):
        check_data(spec(dataset__train_dataset_dir=str(root / "nowhere")))
    same = {"query_dataset_dir": str(root / "query"), "test_dataset_dir": str(root / "gallery")}
    with pytest.raises(InputError, match="a name occurs twice"):
        check_data(spec(dataset__extra_tests=[{"name": "duke", **same}, {"name": "duke", **same}]))


def test_validation_on_the_test_folders_is_not_shown_twice(spec: Spec) -> None:
    assert list(check_data(spec(dataset__validation="test")).rows()) == ["train", "query", "gallery"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG"])
def test_a_contact_sheet_is_drawn(root: Path, spec: Spec, suffix: str) -> None:
    (root / "train" / "0001_c1_0.png").write_bytes(b"broken")
    path = root / "new" / f"sheet{suffix}"
    assert len(check_data(spec(), path).findings) == 1
    with Image.open(path) as image:
        assert image.format == ("PNG" if suffix == ".png" else "JPEG")
        assert image.width >= 3 * 100 and image.height >= 8 * 100
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_contact_sheet_needs_a_picture_name_and_a_picture(root: Path, spec: Spec) -> None:
    with pytest.raises(InputError, match="the name of the contact sheet .*sheet.txt must end in .png or .jpg"):
        check_data(spec(), root / "sheet.txt")
    for path in (root / "train").iterdir():
        path.write_bytes(b"broken")
    report = check_data(spec(), root / "sheet.png")
    assert len(sentences(report, "error")) == 1 and "is not written" in sentences(report, "note")[0]
    assert not (root / "sheet.png").exists()


def save(path: Path, image: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def noise(seed: int, size: tuple[int, int] = (16, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".tif", ".TIFF", ".jpeg", ".PNG"])
def test_images_of_every_accepted_format_are_used(root: Path, spec: Spec, suffix: str) -> None:
    for number, path in enumerate(sorted((root / "train").iterdir())):
        if number % 4:
            save(path.with_suffix(suffix), noise(number))
            path.unlink()
    report = check_data(spec(dataset__strict=True))
    assert report.findings == () and report.rows()["train"]["used"] == 24


@pytest.mark.parametrize(
    ("names", "reason", "count", "sentence"),
    [
        (
            ("0001_c1_0.gif", "0001_c2_0.gif"),
            "format",
            2,
            r"2 files of train are left out, of another image format \(0001_c1_0.gif, 0001_c2",
        ),
        (
            ("photo.jpg",),
            "name",
            1,
            r"1 file of train is left out, whose name does not parse \(photo.jpg in .*rename them to IDENTITY_c",
        ),
        (("0065C1T0002F016.jpg",), "name", 1, "looks like a name of MARS .*renamed 0065_c1_"),
        (
            ("0009/a.jpg", "0009/b.jpg"),
            "subfolder",
            2,
            r"left out, in sub-folders \(0009/ in .*such as 0009_c1_a.jpg for 0009/a.jpg",
        ),
        (("query/0001_c1.png",), "subfolder", 1, "name the folder with the images itself, such as .*/train/query"),
    ],
)
def test_possible_images_that_are_left_out_are_findings(
    root: Path, spec: Spec, names: tuple[str, ...], reason: str, count: int, sentence: str
) -> None:
    for name in names:
        path = root / "train" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    report = check_data(spec())
    assert re.search(f"{sentence}.*", only(report, "note"))
    assert report.as_dict()["subsets"]["train"] | {"left_out": {reason: count}} == report.as_dict()["subsets"]["train"]
    assert report.rows()["train"][f"left out: {reason}"] == count and report.rows()["train"]["files"] == 24 + count
    assert "), which dataset.strict does not allow: " in only(check_data(spec(dataset__strict=True)), "error")


def test_a_named_pipe_among_the_images_is_not_opened(root: Path, spec: Spec) -> None:
    os.mkfifo(root / "gallery" / "0011_c4_0.png")
    assert "1 file of gallery is left out, not a regular file (0011_c4_0.png in " in only(check_data(spec()), "note")


def test_identities_that_count_from_zero_are_told(root: Path, spec: Spec) -> None:
    people(root / "train", range(1))
    sentence = only(check_data(spec()), "note")
    assert sentence.startswith(
        "3 images of train have identity 0, which marks distractors, and are left out of training ("
    )
    assert sentence.endswith("if identities are numbered from 0, give this one an unused number such as 0009.")
    assert check_data(spec()).as_dict()["subsets"]["train"]["left_out"] == {"distractor": 3}
    write(root / "train", *(f"0000_c4_{number}.png" for number in range(9)))
    assert "numbered from 0" not in only(check_data(spec()), "note")


@pytest.mark.parametrize(
    ("colour", "options"),
    [((0, 0, 0), {}), ((255, 255, 255), {}), ((12, 200, 90), {"quality": 50}), ((128, 128, 128), {"quality": 95})],
)
def test_images_of_one_colour_are_told(
    root: Path, spec: Spec, colour: tuple[int, int, int], options: dict[str, int]
) -> None:
    for identity in (1, 2):
        path = root / "train" / f"000{identity}_c4_0.{'jpg' if options else 'png'}"
        save(path, Image.new("RGB", (16, 32), colour), **options)
    sentence = only(check_data(spec()), "note")
    assert sentence.startswith("2 of 26 images of train are of a single colour (0001_c4_0.")
    assert sentence.endswith("they show nobody: remove them.")


def test_a_set_of_one_colour_is_an_error(root: Path, spec: Spec) -> None:
    for path in (root / "gallery").iterdir():
        save(path, Image.new("RGB", (16, 32), (7, 7, 7)))
    assert "8 of 8 images of gallery are of a single colour" in only(check_data(spec()), "error")


@pytest.mark.parametrize(("suffix", "severity"), [(".bmp", "error"), (".tif", "error"), (".webp", "error")])
def test_equal_pixels_in_files_of_different_formats(root: Path, spec: Spec, suffix: str, severity: str) -> None:
    with Image.open(root / "train" / "0001_c1_0.png") as image:
        save(root / "train" / f"0002_c4_0{suffix}", image.copy(), **({"lossless": True} if suffix == ".webp" else {}))
    assert only(check_data(spec()), severity).startswith("1 image(s) of train have two identities")


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(path.with_suffix(".jpg"), noise(1, (32, 16)), exif=exif)


def transparent(path: Path) -> None:
    save(path, noise(2).convert("RGBA"))


def animated(path: Path) -> None:
    save(path, noise(3), save_all=True, append_images=[noise(4)])


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (turned, "1 of 25 images of train are turned by their EXIF orientation"),
        (transparent, "1 of 25 images of train have transparency, which is ignored"),
        (animated, "1 of 25 images of train have several images in a file, of which the first is used"),
    ],
)
def test_images_that_the_decoder_converts_are_told(
    root: Path, spec: Spec, make: Callable[[Path], None], problem: str
) -> None:
    make(root / "train" / "0001_c4_0.png")
    assert only(check_data(spec()), "note").startswith(problem)


def test_names_with_control_characters_are_escaped(root: Path, spec: Spec) -> None:
    write(root / "train", "a\nb\x1b[31m.png", "0001_c1_\n.png")
    (root / "train" / "0001_c2_\n.png").write_text("broken")
    (root / "gallery" / os.fsdecode(b"0011_c4_\xff\r.png")).write_text("broken")
    shutil.copy(root / "train" / "0001_c1_\n.png", root / "train" / "0002_c1_\x9b.png")
    findings = check_data(spec()).findings
    assert len(findings) == 4 and all(finding.sentence.isprintable() for finding in findings)
    assert any("0011_c4_\\xff\\r.png cannot be read" in finding.sentence for finding in findings)


def test_many_files_with_one_problem_are_one_finding(root: Path, spec: Spec) -> None:
    for path in (root / "train").iterdir():
        path.write_bytes(b"broken")
    report = check_data(spec())
    (sentence,) = sentences(report, "error")
    assert sentence.startswith(
        "24 of 24 images of train cannot be read (0001_c1_0.png, 0001_c2_0.png, 0001_c3_0.png and "
    )
    assert report.as_dict()["subsets"]["train"]["left_out"] == {"unreadable": 24}
    assert report.rows()["train"]["used"] == 0
