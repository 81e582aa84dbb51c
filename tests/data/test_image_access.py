"""Which files are opened as images: regular files of five formats, within limits."""

import ast
import os
import pickle
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import reid_tune
from reid_tune.data.image_file import ImageError, content_digest
from reid_tune.data.images import require_readable
from reid_tune.data.pixel_budget import SMALL_PIXELS, PixelBudget
from reid_tune.data.records import ImageRecord

from .image_files import chunk, noise, png, read_image, saved, written

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest shows what the module hides

ROOT = Path(reid_tune.__file__).parent


@pytest.mark.parametrize("content", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".tif"])
def test_the_content_decides_the_format(tmp_path: Path, content: str, suffix: str) -> None:
    path = written(tmp_path, saved(Image.fromarray(noise()), content), f"0001_c1{suffix}")
    assert read_image(path).size == (noise().shape[1], noise().shape[0])


@pytest.mark.parametrize("content", ["EPS", "PDF", "GIF", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "SGI", "IM", "XBM"])
def test_other_formats_are_refused_and_start_no_program(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(noise()).convert("1" if content == "XBM" else "RGB")
    path = written(tmp_path, saved(image, content))
    for name in ("Popen", "run", "check_call", "call"):
        monkeypatch.setattr(subprocess, name, lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ImageError, match="it is not a JPEG, PNG, BMP, WEBP or TIFF image; replace or remove the file"):
        read_image(path)


def special(folder: Path, kind: str) -> Path:
    path = folder / "0001_c1.jpg"
    match kind:
        case "a named pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "a socket or a device":
            socket.socket(socket.AF_UNIX).bind(str(path))
        case "a named pipe, linked":
            os.mkfifo(folder / "pipe")
            path.symlink_to("pipe")
        case "Too many levels of symbolic links":
            path.symlink_to(path.name)
        case device:
            path.symlink_to(device)
    return path


@pytest.mark.parametrize("read", [read_image, content_digest, lambda path: require_readable([ImageRecord(path, 1, 1)])])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        *((kind, kind) for kind in ("a named pipe", "a folder", "a socket or a device")),
        ("Too many levels of symbolic links", "Too many levels of symbolic links"),
        ("a named pipe, linked", "a named pipe"),
        ("/dev/zero", "a device"),
        ("/dev/urandom", "a device"),
        ("/dev/null", "a device"),
    ],
)
def test_only_regular_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reason: str, read: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = special(Path(), kind)  # the address of a socket is short
    started = time.monotonic()
    with pytest.raises(ImageError, match=rf"^cannot read the image {path}: (it is )?{reason}; ") as error:
        read(path)
    assert time.monotonic() - started < 5 and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    for name in ("gone.jpg", "link.jpg", "no folder/gone.jpg"):
        for read in (read_image, content_digest):
            with pytest.raises(ImageError, match=f"^there is no image {tmp_path / name}; check the data set.$"):
                read(tmp_path / name)


def sparse(size: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = written(folder, png(noise()))
        os.truncate(path, size)
        return path

    return write


def claimed(width: int, height: int, kind: str = "PNG") -> Callable[[Path], Path]:
    """A small file whose header claims a size."""
    content = saved(Image.new("RGB", (3, 2)), kind)
    if kind == "TIFF":
        for tag, value in ((b"\0\1", width), (b"\1\1", height)):
            at = content.index(tag + b"\4\0\1\0\0\0")
            content = content[: at + 8] + struct.pack("<I", value) + content[at + 12 :]
    elif kind == "PNG":
        header = struct.pack(">II", width, height) + content[24:29]
        content = content[:8] + chunk(b"IHDR", header) + content[33:]
    elif kind == "BMP":
        content = content[:18] + struct.pack("<ii", width, height) + content[26:]
    elif kind == "JPEG":
        at = content.index(b"\xff\xc0") + 5
        content = content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]
    return lambda folder: written(folder, content)


@pytest.mark.parametrize(
    "write",
    [
        *(
            claimed(*size, kind)
            for size in ((13_000, 13_000), (8_000, 7_000), (7_072, 7_072), (20_001, 1), (1, 20_001), (30_000, 30_000))
            for kind in ("PNG", "TIFF", "BMP", "JPEG")
        ),
        sparse(200_000_001),
        sparse(1 << 40),
    ],
)
def test_what_would_fill_the_memory_is_refused(
    tmp_path: Path, write: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path)
    with pytest.raises(ImageError) as error:
        read_image(path)
    assert str(error.value) == (
        f"cannot read the image {path}: it exceeds a limit of images (50 megapixels, 20,000 pixels on a side and "
        "200 MB); replace it by a smaller image or remove it."
    )
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("width", "height"), [(20_000, 50), (50, 20_000), (1, 1), (3_000, 2_000)])
def test_sizes_within_the_limits_are_read(tmp_path: Path, width: int, height: int) -> None:
    assert read_image(written(tmp_path, saved(Image.new("L", (width, height)), "PNG"))).size == (width, height)


def test_large_images_wait_for_each_other() -> None:
    budget, held, most, lock = PixelBudget(10_000_000), 0, 0, threading.Lock()

    def decode(pixels: int) -> None:
        nonlocal held, most
        acquired = budget.acquire(pixels)
        with lock:
            held += pixels
            most = max(most, held)
        time.sleep(0.002)
        with lock:
            held -= pixels
        budget.release(acquired)

    sizes = [10_000_000, 4_000_000, 7_000_000, 2_000_000, 9_000_000, 3_000_000] * 3
    threads = [threading.Thread(target=decode, args=[size]) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert 0 < most <= 10_000_000
    assert budget.acquire(10_000_000) and not budget.acquire(SMALL_PIXELS), "a small image does not wait"


def test_an_error_survives_the_way_between_processes(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        read_image(written(tmp_path, b"no image"))
    copy = pickle.loads(pickle.dumps(error.value))
    assert (str(copy), copy.reason, copy.remedy) == (str(error.value), error.value.reason, error.value.remedy)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_opens_images(path: Path) -> None:
    readers = {"imread", "read_image", "decode_image", "decode_jpeg", "imdecode"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in {"open", *readers}:
            opens = isinstance(node.value, ast.Name) and node.value.id == "Image"
            assert not opens or path.name == "image_file.py", f"line {node.lineno}: use open_image"
            assert node.attr == "open", f"line {node.lineno}: use open_image"
        if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
            assert "open" not in {alias.name for alias in node.names}, f"line {node.lineno}: use open_image"
