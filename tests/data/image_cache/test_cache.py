"""The image cache: the pixels of `decode_images`, one builder, and nothing read that is not whole."""

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from reid_tune.data import images
from reid_tune.data.image_cache import admin as cache_contents
from reid_tune.data.image_cache.admin import list_entries
from reid_tune.data.image_cache.cache import image_cache_folder, load_cached_images
from reid_tune.data.image_cache.lock import build_lock
from reid_tune.data.image_spec import ImageSpec, Interpolation
from reid_tune.data.images import decode_images
from reid_tune.data.records import ImageRecord, read_image_folder
from reid_tune.errors import InputError

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

SPEC = ImageSpec(8, 4, "bilinear")
MANY = 300  # more than a builder decodes at a time, so that it says a line


@pytest.fixture
def place(tmp_path: Path, monkeypatch: Patch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def draw(folder: Path, images: int = 6, seed: int = 0) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(images):
        pixels = rng.integers(0, 256, (9, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number // 2:04d}_c{number % 2 + 1}_{number:06d}.png")
    return folder


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    return draw(tmp_path / "crops")


def records_of(folder: Path) -> tuple[ImageRecord, ...]:
    return read_image_folder(folder).records


def files(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def built(folder: Path) -> Path:
    """The file of a folder that was not cached before."""
    before = set(files(image_cache_folder()))
    load_cached_images(records_of(folder), SPEC)
    (name,) = set(files(image_cache_folder())) - before
    return image_cache_folder() / name


@pytest.mark.parametrize("size", [(8, 4), (20, 11)])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_pixels_are_those_of_decode(
    place: Path, crops: Path, interpolation: Interpolation, grey: bool, size: tuple[int, int]
) -> None:
    records = records_of(crops)
    spec = ImageSpec(*size, interpolation, 1 if grey else 3)
    wanted = decode_images(records, spec)
    for _ in ("built", "opened"):
        found = load_cached_images(records, spec)
        assert found.shape == wanted.shape and len(found) == 6
        np.testing.assert_array_equal(found[:], wanted)
    assert len(files(place)) == 1


def test_images_are_taken_in_any_order_and_as_copies(place: Path, crops: Path) -> None:
    wanted = decode_images(records_of(crops), SPEC)
    found = load_cached_images(records_of(crops), SPEC)
    for indices in ([5, 0, 0, 3], np.array([2, -1]), np.array([], int)):
        np.testing.assert_array_equal(found.take(indices), wanted[np.asarray(indices, int)])
    for part in (slice(1, 4), slice(4, 99), slice(None, None, -2), slice(3, 3)):
        np.testing.assert_array_equal(found[part], wanted[part])
    np.testing.assert_array_equal(np.stack(list(found)), wanted)
    np.testing.assert_array_equal(found[-1], wanted[-1])
    with pytest.raises(IndexError):
        found[6]
    taken = found.take([1])
    taken += 1
    np.testing.assert_array_equal(found[:], wanted)


def test_records_of_several_folders_keep_their_order(place: Path, crops: Path, tmp_path: Path) -> None:
    other = draw(tmp_path / "other", seed=1)
    mixed = [record for pair in zip(records_of(crops)[::-1], records_of(other), strict=True) for record in pair][2:9]
    found = load_cached_images(mixed, SPEC)
    np.testing.assert_array_equal(found[:], decode_images(mixed, SPEC))
    assert {entry.header.images for entry in list_entries() if entry.header} == {6}, "whole folders are cached"


def test_another_size_filter_or_colour_is_another_file(place: Path, crops: Path) -> None:
    records = records_of(crops)
    specs = [SPEC, ImageSpec(4, 8, "bilinear"), ImageSpec(8, 4, "bicubic")]
    for count, spec in enumerate(specs):
        load_cached_images(records, spec)
        load_cached_images(records, replace(spec, channels=1))
        load_cached_images(records, replace(spec, mean=(0.5, 0.5, 0.5)))  # the normalisation does not matter
        assert len(files(place)) == 2 * count + 2


def test_another_content_or_name_is_another_file(place: Path, crops: Path) -> None:
    one, two, *_ = sorted(crops.iterdir())
    first, second = one.read_bytes(), two.read_bytes()
    names = {built(crops)}
    one.write_bytes(second)
    names.add(built(crops))
    two.write_bytes(first)  # the same bytes as at first, but changed places
    names.add(built(crops))
    one.rename(crops / "0000_c1_9.png")
    names.add(built(crops))
    two.unlink()
    names.add(built(crops))
    assert len(names) == 5


def test_the_same_content_elsewhere_or_later_is_the_same_file(place: Path, crops: Path, tmp_path: Path) -> None:
    state = built(crops).stat()
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in crops.iterdir():
        os.utime(path, (1, 1))
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "readme.txt").write_text("no image")
    for folder in (crops, copy):
        load_cached_images(records_of(folder), SPEC)
    (path,) = place.iterdir()
    assert (path.stat().st_ino, path.stat().st_size) == (state.st_ino, state.st_size)


@pytest.mark.parametrize("damage", ["truncated", "longer", "empty", "garbage", "another's", "flipped"])
def test_a_damaged_file_is_built_again(place: Path, crops: Path, tmp_path: Path, damage: str) -> None:
    path = built(crops)
    content = path.read_bytes()
    ways = {
        "truncated": [content[:-1], content[:1000], content[: len(content) // 2]],
        "longer": [content + b"\0"],
        "empty": [b""],
        "garbage": [os.urandom(len(content))],
        "another's": [built(draw(tmp_path / "other", seed=1)).read_bytes()],
        "flipped": [
            content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
            for place in (0, 31, 40, 100, 300, 32767, 32768, len(content) - 100, len(content) - 1)
        ],
    }
    wanted = decode_images(records_of(crops), SPEC)
    for wrong in ways[damage]:
        path.write_bytes(wrong)
        np.testing.assert_array_equal(load_cached_images(records_of(crops), SPEC)[:], wanted)
        assert path.read_bytes() == content


def test_a_check_finds_a_changed_pixel(place: Path, crops: Path, tmp_path: Path) -> None:
    good, path = built(crops), built(draw(tmp_path / "other", seed=1))
    assert cache_contents.check_entries() == {good.stem: True, path.stem: True}
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert cache_contents.check_entries() == {good.stem: True, path.stem: False}
    assert cache_contents.check_entries(good.stem) == {good.stem: True}


def in_memory(folder: Path, capsys: Capture, count: int = 4) -> str:
    """Return the line of a run that cannot use the cache and decodes its records itself."""
    records = records_of(folder)[:count]
    found = load_cached_images(records, SPEC)
    np.testing.assert_array_equal(found[:], decode_images(records, SPEC))
    assert [len(array) for array in found.arrays] == [count]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("not cached: ")
    return line


def test_a_full_disk_is_not_an_error(place: Path, crops: Path, capsys: Capture, monkeypatch: Patch) -> None:
    load_cached_images(records_of(crops), SPEC)
    size = next(place.iterdir()).stat().st_size
    cache_contents.clear_entries()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1.04 * size))
        line = in_memory(crops, capsys)
    sizes = [f"{factor * size / 1e6:,.1f}" for factor in (1.04, 1.05)]
    assert line == f"not cached: {place} has {sizes[0]} MB free, {sizes[1]} are needed; decoding into memory"
    assert files(place) == []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1.06 * size))
    load_cached_images(records_of(crops), SPEC)
    assert len(files(place)) == 1


def test_a_folder_that_cannot_be_written_is_not_an_error(place: Path, crops: Path, capsys: Capture) -> None:
    place.write_text("a file in the way")
    assert "Not a directory; decoding into memory" in in_memory(crops, capsys)
    assert place.read_text() == "a file in the way"


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize(("owner", "name"), [(fcntl, "flock"), (np, "memmap")])
def test_a_disk_without_locks_or_maps_is_not_an_error(
    place: Path, crops: Path, capsys: Capture, monkeypatch: Patch, owner: object, name: str
) -> None:
    monkeypatch.setattr(owner, name, refuse)
    assert f"{place}: No locks available; decoding into memory" in in_memory(crops, capsys)


def test_a_relative_folder_is_not_used(crops: Path, capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", "here")
    assert "here is relative" in in_memory(crops, capsys)
    assert not Path("here").exists()


def test_the_place_follows_the_environment(monkeypatch: Patch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert image_cache_folder() == Path(os.environ["REID_TUNE_CACHE_DIR"])
    monkeypatch.delenv("REID_TUNE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert image_cache_folder() == Path("/scratch/reid-tune/images")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert image_cache_folder() == Path("/home/someone/.cache/reid-tune/images")


def test_an_unreadable_image_is_named_and_nothing_stays(place: Path, crops: Path, capsys: Capture) -> None:
    broken = crops / "0002_c9_broken.png"
    for content in (b"no image", sorted(crops.iterdir())[0].read_bytes()[:60]):
        broken.write_bytes(content)
        with pytest.raises(InputError) as plain:
            decode_images(records_of(crops), SPEC)
        with pytest.raises(InputError, match=r"0002_c9_broken\.png") as found:
            load_cached_images(records_of(crops), SPEC)
        assert str(found.value) == str(plain.value)
        assert files(place) == [] and capsys.readouterr().err == ""
    assert f"cannot read the image {broken}: " in in_memory(crops, capsys), "nobody has asked for it"
    assert files(place) == []


def test_a_lost_image_is_named(place: Path, crops: Path) -> None:
    records = records_of(crops)
    load_cached_images(records, SPEC)
    records[2].path.unlink()
    with pytest.raises(InputError, match=f"there is no image {records[2].path}"):
        load_cached_images(records, SPEC)


def test_images_that_change_during_decoding_are_not_kept(
    place: Path, crops: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    first, *_, last = sorted(crops.iterdir())
    before, changed = images.load_image, Image.new("RGB", (5, 9))

    def change(path: Path, spec: ImageSpec) -> np.ndarray:
        pixels = before(path, spec)
        if path == last:  # replaced as a whole: another thread may be reading the first image
            changed.save(place.parent / "changed.png")
            (place.parent / "changed.png").replace(first)
        return pixels

    with monkeypatch.context() as patch:
        patch.setattr(images, "load_image", change)
        assert f"images in {crops} changed while they were decoded" in in_memory(crops, capsys)
    assert files(place) == []


def test_files_in_use_are_not_removed(place: Path, crops: Path, tmp_path: Path) -> None:
    used, free = built(crops), built(draw(tmp_path / "other", seed=1))
    held = load_cached_images(records_of(crops), SPEC)
    cleared = cache_contents.clear_entries()
    assert (cleared.removed, cleared.in_use) == ([free.stem], [used.stem])
    assert files(place) == [used.name]
    np.testing.assert_array_equal(held[:], decode_images(records_of(crops), SPEC))
    del held
    assert cache_contents.clear_entries(used.stem).removed == [used.stem]
    assert files(place) == []


# Prints a line when it is ready, and begins when it gets one.
PROGRAM = """
import hashlib, json, resource, sys
from reid_tune.data.image_cache.cache import load_cached_images
from reid_tune.data.image_cache.admin import list_entries
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data import images
from reid_tune.data.records import read_image_folder

records = read_image_folder(sys.argv[1]).records
if len(sys.argv) == 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
if len(sys.argv) == 4:
    load = images.load_image
    def load_image(path, spec):
        if path.name == sys.argv[2]:
            open(sys.argv[3], "rb").read()
        return load(path, spec)
    images.load_image = load_image
print("ready", flush=True)
sys.stdin.readline()
pixels = load_cached_images(records, ImageSpec(8, 4, "bilinear"), threads=1)[:]
print(json.dumps([hashlib.sha256(pixels.tobytes()).hexdigest(), [entry.header.builder for entry in list_entries()]]))
"""


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder), *map(str, arguments)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def results(processes: list[subprocess.Popen[str]], folder: Path) -> tuple[set[int], str]:
    """Who built the one file that all of them have read, and what they said; all saw the pixels of `decode_images`."""
    ends = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), ends
    found = [json.loads(out) for out, _ in ends]
    wanted = decode_images(records_of(folder), SPEC)
    assert {digest for digest, _ in found} == {hashlib.sha256(wanted.tobytes()).hexdigest()}
    return {builder for _, builders in found for builder in builders}, "".join(err for _, err in ends)


@pytest.mark.integration
def test_of_processes_that_start_at_once_one_builds(place: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "many", MANY)
    processes = [start(folder) for _ in range(4)]
    for process in processes:
        go(process)
    builders, said = results(processes, folder)
    assert len(builders) == 1 and builders < {process.pid for process in processes}
    assert said.count(f"decoding {MANY} images for the cache ...") == 1
    assert [name.endswith(".crops") for name in files(place)] == [True]


@pytest.mark.integration
def test_another_process_takes_over_when_the_builder_is_killed(place: Path, tmp_path: Path) -> None:
    """A pipe that the builder opens before an image stops it in the middle."""
    folder, pipe = draw(tmp_path / "many", MANY), tmp_path / "pipe"
    os.mkfifo(pipe)
    killed = start(folder, sorted(folder.iterdir())[280].name, pipe)
    go(killed)
    assert killed.stderr is not None
    assert killed.stderr.readline() == f"decoding {MANY} images for the cache ...\n"
    with pipe.open("wb"):  # returns when the builder wants the image
        others = [start(folder) for _ in range(3)]
        for process in others:
            go(process)
        for process in others:
            assert process.stderr is not None
            waits = process.stderr.readline()
            assert waits == f"waiting for another process to decode {MANY} images ... 85 %\n"
        assert cache_contents.clear_entries().in_use == cache_contents.clear_entries().in_use != []
        assert len(files(place)) == 2, "the lock and a part of the file"
        killed.kill()
        killed.communicate()
    builders, said = results(others, folder)
    assert len(builders) == 1 and builders < {process.pid for process in others}
    assert said.count(f"decoding {MANY} images for the cache ...") == 1
    assert [name.endswith(".crops") and not name.startswith(".") for name in files(place)] == [True]


def test_the_lock_of_a_builder_that_was_killed_at_its_end_is_removed(place: Path, crops: Path) -> None:
    path = built(crops)
    path.with_suffix(".lock").touch()
    load_cached_images(records_of(crops), SPEC)
    assert files(place) == [path.name]
    with build_lock(path.with_suffix(".lock"), print):
        load_cached_images(records_of(crops), SPEC)
        assert path.with_suffix(".lock").exists(), "of a builder that is alive"


def test_what_killed_builders_left_is_cleared(place: Path, crops: Path) -> None:
    path = built(crops)
    lost = "0" * 24
    for name in (f"{lost}.lock", f".{lost}.crops.abc.crops", f".{path.name}.def.crops"):
        (place / name).write_bytes(b"part")
    others = ["another.lock", ".another.crops.x", "notes.txt"]
    for name in others:
        (place / name).write_text("not ours")
    assert [entry.name for entry in list_entries()] == [path.stem]
    assert cache_contents.clear_entries().removed == [lost, path.stem]
    assert files(place) == sorted(others)


@pytest.mark.integration
def test_a_disk_that_fills_up_is_not_an_error(place: Path, tmp_path: Path) -> None:
    folder = draw(tmp_path / "many", MANY)
    process = start(folder, 40_000)
    go(process)
    builders, said = results([process], folder)
    assert builders == set() and files(place) == []
    assert said.splitlines()[-1] == f"not cached: {place}: File too large; decoding into memory"
