"""`reid-tune cache`: what is there, whether it is whole, and its removal."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from PIL import Image

from reid_tune.data.image_cache.cache import load_cached_images
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.records import read_image_folder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run(command: Run, place: Path) -> Run:
    """Run `reid-tune cache`: its status, stdout and stderr."""
    return partial(command, "cache")


def build(place: Path, folder: Path, images: int, grey: bool = False) -> str:
    """Cache a new folder of images; the name of its file."""
    folder.mkdir()
    for number in range(images):
        Image.new("RGB", (4, 8), (number, 0, 0)).save(folder / f"{number:04d}_c1.png")
    before = set(place.glob("*"))
    load_cached_images(read_image_folder(folder).records, ImageSpec(16, 8, "bicubic", 1 if grey else 3))
    (path,) = set(place.glob("*")) - before
    return path.stem


def test_the_list_says_what_is_there(run: Run, place: Path, tmp_path: Path) -> None:
    assert run("--format", "json") == (0, "[]\n", "")
    assert not place.exists()
    names = {build(place, tmp_path / "one", 3): "one", build(place, tmp_path / "two", 5, grey=True): "two"}
    status, out, _ = run("--format", "json")
    listed = {entry["name"]: entry for entry in json.loads(out)}
    assert status == 0 and {name: Path(entry["folder"]).name for name, entry in listed.items()} == names
    two = next(entry for name, entry in listed.items() if names[name] == "two")
    assert two["folder"] == str(tmp_path / "two") and two["grey"] is True
    assert [two[key] for key in ("images", "height", "width", "interpolation")] == [5, 16, 8, "bicubic"]
    assert two["bytes"] == (place / f"{two['name']}.crops").stat().st_size >= 5 * 16 * 8 * 3
    assert yaml.safe_load(run("--format", "yaml")[1]) == list(listed.values())
    assert json.loads(run(two["name"], "--format", "json")[1]) == [two]


def test_the_table_shows_counts_as_counts(run: Run, place: Path, tmp_path: Path) -> None:
    name = build(place, tmp_path / "one", 3)
    (place / f"{'0' * 24}.crops").write_bytes(b"garbage")
    status, out, _ = run()
    assert status == 1 and "%" not in out
    (line,) = [line for line in out.splitlines() if name in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[:5] == [name, str(tmp_path / "one"), "3", "16 x 8", "bicubic"]
    assert "damaged: will be built again" in out


def test_clearing_all_leaves_what_is_open(run: Run, place: Path, tmp_path: Path) -> None:
    one, two = build(place, tmp_path / "one", 3), build(place, tmp_path / "two", 5)
    held = load_cached_images(read_image_folder(tmp_path / "two").records, ImageSpec(16, 8, "bicubic"))
    status, out, _ = run("--clear", "--format", "json")
    assert (status, json.loads(out)) == (1, {"removed": [one], "in_use": [two]})
    status, out, _ = run("--clear", two)
    assert status == 1 and two in out and "in use by a process, not removed" in out
    assert [path.stem for path in place.iterdir()] == [two] and len(held[:]) == 5
    del held
    status, out, _ = run("--clear")
    assert status == 0 and two in out and list(place.iterdir()) == []


def test_one_file_is_cleared_by_its_name(run: Run, place: Path, tmp_path: Path) -> None:
    one, two = build(place, tmp_path / "one", 3), build(place, tmp_path / "two", 5)
    assert run("--clear", one)[0] == 0
    assert [path.stem for path in place.iterdir()] == [two]
    for wrong in (one, "../cache", ""):
        status, out, err = run("--clear", wrong)
        assert (status, out) == (2, "") and f"there is no {wrong} in {place}" in err
    assert [path.stem for path in place.iterdir()] == [two]


def test_a_check_names_the_damaged(run: Run, place: Path, tmp_path: Path) -> None:
    one, two = build(place, tmp_path / "one", 3), build(place, tmp_path / "two", 5)
    assert run("--check")[0] == 0
    path = place / f"{two}.crops"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"\xff" * 9)
    status, out, _ = run("--check", "--format", "json")
    assert (status, json.loads(out)) == (1, {one: True, two: False})
    assert run("--check", one)[0] == 0
    assert [line.count("damaged") for line in run("--check")[1].splitlines() if two in line] == [1]


def test_two_wishes_at_once_are_refused(run: Run, place: Path, tmp_path: Path) -> None:
    name = build(place, tmp_path / "one", 3)
    status, out, err = run("--check", "--clear")
    assert (status, out) == (2, "") and "mutually exclusive" in err
    assert (place / f"{name}.crops").exists()
