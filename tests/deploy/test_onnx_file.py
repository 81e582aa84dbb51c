"""Damage in ONNX files: a checksum notices it in exported ones, and no other one ends in a traceback."""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import helper

from reid_tune.config.load import build_experiment
from reid_tune.deploy.onnx_embedder import open_embedder
from reid_tune.deploy.onnx_file import first_line, read_onnx
from reid_tune.deploy.onnx_input import InputRequest
from reid_tune.errors import InputError

from ..helpers.onnx_files import write_exported, write_onnx

REQUEST = InputRequest.from_experiment(build_experiment({}, {}, "test"), "evaluate")


def exported(path: Path) -> bytes:
    """The bytes of a small file with all that an export has."""
    write_exported(path, 10, 8)
    return path.read_bytes()


def flip(content: bytes, position: int, bit: int = 0) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def weights_position(content: bytes) -> int:
    model = onnx.ModelProto.FromString(content)
    return content.index(model.graph.initializer[0].raw_data) + 5


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit of a weight": lambda content: flip(content, weights_position(content)),
    "the sign of a weight": lambda content: flip(content, weights_position(content) // 4 * 4 + 3, 7),
    "the mean": lambda content: content.replace(b"[0.5, 0.5, 0.5]", b"[0.5, 0.4, 0.5]", 1),
    "the height": lambda content: content.replace(b"\x0210", b"\x0211"),
    "an operator": lambda content: content.replace(b"ReduceMean", b"ReduceProd"),
    "the checksum": lambda content: flip(content, len(content) - 1),
    "the checksum's name": lambda content: content.replace(b"crc32", b"crc33"),
    "the producer": lambda content: flip(content, content.index(b"reid-tune")),
    "a byte more": lambda content: content + b"\x00",
    "another message after it": lambda content: content + onnx.ModelProto(producer_name="x").SerializeToString(),
    "without its checksum": lambda content: content[:-19],
    "without its metadata": lambda content: content[: content.index(b"channels") - 4],
    "zeros at the end": lambda content: content[:-64] + bytes(64),
    "zeros in the middle": lambda content: content[:64] + bytes(64) + content[128:],
    "two swapped blocks": lambda content: content[:100] + content[140:180] + content[100:140] + content[180:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_export_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m.onnx"
    content = exported(path)
    assert open_embedder(path, REQUEST, threads=1).dimension == 5
    changed = DAMAGE[damage](content)
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(
        InputError, match="m.onnx is (damaged, or was changed after its export|not an ONNX file, or is)"
    ):
        open_embedder(path, REQUEST, threads=1)


def test_the_checksum_is_that_of_all_bytes_before_it(tmp_path: Path) -> None:
    written = write_exported(tmp_path / "m.onnx", 10, 8)
    content = (tmp_path / "m.onnx").read_bytes()
    register = 0xFFFFFFFF
    for byte in content[:-19]:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert metadata == written | {"crc32": f"{register ^ 0xFFFFFFFF:08x}"}
    assert read_onnx(tmp_path / "m.onnx").metadata == written


def test_a_file_that_was_changed_on_purpose_opens(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    metadata = write_exported(path, 10, 8)
    model = onnx.load(path)
    model.producer_name = "a simplifier"
    helper.set_model_props(model, metadata | {"height": "12"})
    onnx.save(model, path)
    file = read_onnx(path)
    assert file.is_exported and file.metadata["height"] == "12"


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="it is not a regular file"):
        read_onnx(tmp_path / "m.onnx")


def test_texts_that_are_not_utf8_are_damage(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", ("b", 3, 10, 8), metadata={"author": "Ultralytics"})
    path.write_bytes(path.read_bytes().replace(b"Ultra", b"\xff\xfe\xfd\xfc\xfb"))
    with pytest.raises(InputError, match="not an ONNX file, or is damaged"):
        read_onnx(path)


def test_names_in_a_message_do_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", ("b", 5, 10, 8), names=("in\x1b[31m\nput", "output"))
    with pytest.raises(InputError) as caught:
        open_embedder(path, REQUEST, threads=1)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m and \x1b[1;96mblue\x1b[0m\nsecond line", "red and blue"),
        ("\n\n  first\n", "first"),
        ("", "ValueError"),
        ("a\x07b", r"'a\x07b'"),
        ("x" * 600, "x" * 500 + "..."),
    ],
)
def test_a_reason_is_one_plain_line(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line
