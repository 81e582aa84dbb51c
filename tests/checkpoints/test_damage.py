import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.checkpoints.damage import content_digest, find_damaged_record, is_zip
from reid_tune.checkpoints.file_kind import describe_other_kind
from reid_tune.checkpoints.third_party_file import read_third_party_weights
from reid_tune.errors import InputError

W = torch.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"w": W}, {"w": W + 1}),
        ({"w": W}, {"v": W}),
        ({"w": W}, {"w": W.double()}),
        ({"w": W}, {"w": W.reshape(3, 2)}),
        ({"w": W}, {"w": W.reshape(3, 2).T}),
        ({"w": torch.zeros(2)}, {"w": -torch.zeros(2)}),
        ({"w": torch.zeros(2, dtype=torch.bfloat16)}, {"w": torch.zeros(2, dtype=torch.half)}),
        ({"n": torch.tensor(True)}, {"n": torch.tensor(False)}),
        ({"n": torch.zeros(0, 2)}, {"n": torch.zeros(2, 0)}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": None}, {"a": "None"}),
        ({1: "a"}, {"1": "a"}),
        ([[1], 2], [[1, 2]]),
        ({"a": {}}, {"a": []}),
        ([{"a": 1}, {"b": 2}], [{"a": 1, "b": 2}]),
    ],
)
def test_digests_tell_contents_apart(one: Any, other: Any) -> None:
    assert content_digest(one) != content_digest(other)
    assert content_digest(one) == content_digest(one) and len(content_digest(one)) == 8


@pytest.mark.parametrize(
    "content",
    [
        {"w": W.T, "n": torch.tensor(5), "view": W[:, 1:], "empty": torch.zeros(0)},
        {"b": torch.randn(3).bfloat16(), "k": torch.arange(3), "m": torch.tensor([True, False])},
        {"a": (1, [2.5, None, float("nan")]), 0: {"x": "\ud800é", "y": b"\x00"}},
        {"shared": [W, W]},
    ],
)
def test_a_digest_survives_writing_and_reading(content: Any) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    assert content_digest(torch.load(buffer, weights_only=True)) == content_digest(content)


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


def test_a_record_that_differs_from_its_checksum_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": W}, path)
    content = path.read_bytes()
    assert find_damaged_record(path) is None and is_zip(path)
    path.write_bytes(flipped(content, content.index(W.numpy().tobytes()) + 5))
    assert find_damaged_record(path) == "a/data/0"
    with pytest.raises(
        InputError, match=r"a.pth is damaged: a/data/0 in it differs .*: download or copy the file again"
    ):
        read_third_party_weights(path)
    path.write_bytes(content[:-30])
    assert not is_zip(path) and find_damaged_record(path) == "the list of its records"


def test_a_record_that_has_become_a_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": W}, path)
    content = path.read_bytes()
    entry = content.rindex(b"a/data/0") - 46  # of the list of records, at the end of the file
    path.write_bytes(content[: entry + 38] + b"\x10" + content[entry + 39 :])  # its external attributes
    with pytest.raises(InputError, match="a.pth is damaged: a/data/0 in it differs"):
        read_third_party_weights(path)


def test_records_without_a_checksum_are_left_out(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": W}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert {record.CRC for record in zipfile.ZipFile(tmp_path / "a.pth").infolist()} == {0}
    assert find_damaged_record(tmp_path / "a.pth") is None
    assert torch.equal(read_third_party_weights(tmp_path / "a.pth")["w"], W)


def write_zip(path: Path, **records: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name.replace("__", "/"), content)


def write_tar(path: Path, *names: str) -> None:
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))


KINDS = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "web page": (lambda path: path.write_text("\n<!DOCTYPE html><html>Sign in"), "is a web page"),
    "drive page": (lambda path: path.write_text("<HTML><body>Virus scan warning"), "needs a login or a confirmation"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "`git lfs pull`"),
    "index": (lambda path: path.write_text('{"weight_map": {}}'), "is JSON text"),
    "keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "is an HDF5 file"),
    "npy": (lambda path: np.save(path.open("wb"), np.ones(2)), "is a NumPy array"),
    "npz": (lambda path: np.savez(path.open("wb"), a=np.ones(2)), "is a NumPy archive"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(99)), "is compressed by gzip: unpack it"),
    "xz": (lambda path: path.write_bytes(b"\xfd7zXZ\x00" + bytes(99)), "is compressed by xz"),
    "zip": (lambda path: write_zip(path, models__a=b"x", b=b"y"), "is a zip archive of models/a, b: unpack it"),
    "tar": (
        lambda path: write_tar(path, "m/a.pth", "b", "c", "d"),
        "is a tar archive of m/a.pth, b, c and more: unpack",
    ),
    "old torch": (
        lambda path: write_tar(path, "sys_info", "pickle", "storages", "tensors"),
        "oldest form of torch.save",
    ),
    "script": (lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(path), "is a TorchScript program"),
    "pdf": (lambda path: path.write_bytes(b"%PDF-1.4"), "is a PDF document"),
}


@pytest.mark.parametrize(("write", "description"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_files_that_are_mistaken_for_weights_are_named(
    tmp_path: Path, write: Any, description: str, ending: str
) -> None:
    path = tmp_path / f"a{ending}"
    write(path)
    with pytest.raises(InputError) as caught:
        read_third_party_weights(path)
    assert f"{path} is " in str(caught.value) and description in str(caught.value)


def test_the_form_of_a_file_counts_and_not_its_name(tmp_path: Path) -> None:
    save_file({"w": W}, tmp_path / "pytorch_model.bin")
    torch.save({"w": W}, tmp_path / "model.safetensors")
    torch.save(({"w": W}, 7), tmp_path / "pair.pth")
    torch.save({"w": W}, tmp_path / "model.pth.tar")
    for name in ("pytorch_model.bin", "model.safetensors", "model.pth.tar"):
        assert torch.equal(read_third_party_weights(tmp_path / name)["w"], W)
    assert torch.equal(read_third_party_weights(tmp_path / "pair.pth")["0"]["w"], W)


def packed(method: int) -> bytes:
    """A file of torch.save whose records another program has compressed."""
    source, target = io.BytesIO(), io.BytesIO()
    torch.save({"w": W}, source)
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", method) as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))
    return target.getvalue()


def changed(content: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """A file with other bytes at an offset from the first mark."""
    start = content.index(mark) + offset
    return content[:start] + value + content[start + len(value) :]


RECORD, ENTRY = b"PK\x03\x04", b"PK\x01\x02"  # of a zip archive: start of a record, and of an entry of its list
STORED, DEFLATED, BZIPPED, LZMA = map(
    packed, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
)


@pytest.mark.parametrize(
    "content",
    [
        changed(STORED, ENTRY, 6, b"\xff"),  # the version that a reader needs
        changed(STORED, ENTRY, 8, b"\x01"),  # encrypted
        changed(STORED, ENTRY, 10, b"\x63"),  # a method that nobody knows
        changed(STORED, ENTRY, 10, b"\x08"),  # deflated, which it is not
        changed(STORED, ENTRY, 10, b"\x0c"),
        changed(STORED, ENTRY, 10, b"\x0e"),
        changed(STORED, ENTRY, 42, b"\xff\xff\xff\x7f"),  # the record's position
        changed(STORED, ENTRY, 30, b"\xff\xff"),  # the length of the entry
        STORED.replace(b"archive/data.pkl", b"a\n\x1bhive/data.pkl").replace(W.numpy().tobytes(), bytes(24)),
        STORED.replace(b"archive/data/0", b"a\n\x1bhive/data/0").replace(W.numpy().tobytes(), bytes(24)),
        changed(LZMA, RECORD, 60, b"\xff" * 8),
        changed(LZMA, RECORD, 40, b"\xff" * 30),
        changed(BZIPPED, RECORD, 60, b"\xff" * 8),
        changed(DEFLATED, RECORD, 60, b"\xff" * 8),
        STORED[:200],
        STORED[200:],
        STORED[:-22] + STORED[-22:].replace(b"\0\0", b"\xff\xff"),
    ],
)
@pytest.mark.parametrize("read", [read_third_party_weights, load_checkpoint, describe_other_kind])
def test_damaged_archives_are_refused_in_one_line(
    tmp_path: Path, content: bytes, read: Any, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    try:
        read(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    assert not recwarn.list
