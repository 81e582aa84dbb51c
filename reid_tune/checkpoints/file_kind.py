"""Kinds of files that are mistaken for weights, by their first bytes."""

import tarfile
import zipfile
from pathlib import Path

__all__ = ["describe_other_kind", "is_safetensors"]

_HEAD_BYTES = 512
_MAX_NAMES = 3
_UNPACK = "unpack it and give the file of weights in it"
_KINDS = (
    (b"version https://git-lfs", "is a Git LFS pointer and not the file itself: fetch it with `git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes them: convert its weights to .safetensors"),
    (b"\x93NUMPY", "is a NumPy array: give a file of torch.save or .safetensors"),
    (b"GGUF", "is a GGUF file: give a file of torch.save or .safetensors"),
    (b"%PDF", "is a PDF document: give a file of torch.save or .safetensors"),
    (b"\x1f\x8b", f"is compressed by gzip: {_UNPACK}"),
    (b"BZh", f"is compressed by bzip2: {_UNPACK}"),
    (b"\xfd7zXZ\x00", f"is compressed by xz: {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"is compressed by zstd: {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"is a 7-Zip archive: {_UNPACK}"),
    (b"Rar!\x1a\x07", f"is a RAR archive: {_UNPACK}"),
)
_WEB_PAGE = ("<!doctype html", "<html", "<?xml")


def is_safetensors(path: Path) -> bool:
    """Whether a file has the form of safetensors, whatever its name is: the length of a JSON header, then the header.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def describe_other_kind(path: Path) -> str | None:
    """Return what a file is that cannot hold weights, and what to do; None for an unknown kind."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "is empty: the file was not written or downloaded completely"
    for start, description in _KINDS:
        if head.startswith(start):
            return description
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if text.lower().startswith(_WEB_PAGE):
        return "is a web page and not a file of weights: the download has failed, or needs a login or a confirmation"
    if text.startswith(("{", "[")):
        return "is JSON text, such as the index of several files of weights: give the file with the tensors"
    if head[257:262] == b"ustar":
        return _describe_tar(path)
    return _describe_zip(path) if head.startswith(b"PK\x03\x04") else None


def _describe_tar(path: Path) -> str:
    try:
        with tarfile.open(path) as archive:
            names = [member.name for member, _ in zip(archive, range(_MAX_NAMES + 1), strict=False)]
    except Exception:  # damaged bytes make the reader raise errors of any kind
        names = []
    if {"storages", "tensors"} & set(names):
        return "is in the oldest form of torch.save: load it with PyTorch, which may run code in it, and save it again"
    return f"is a tar archive{_listing(names)}: {_UNPACK}"


def _describe_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damaged bytes make the reader raise errors of any kind
        return None
    bases = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in bases:
        return "is a TorchScript program, which is code: save the state_dict() of the module instead"
    if names and all(name.endswith(".npy") for name in names):
        return "is a NumPy archive: give a file of torch.save or .safetensors"
    if "data.pkl" in bases:
        return None
    return f"is a zip archive{_listing(names)}: {_UNPACK}"


def _listing(names: list[str]) -> str:
    if not names:
        return ""
    more = " and more" if len(names) > _MAX_NAMES else ""
    return f" of {', '.join(repr(name)[1:-1][:80] for name in names[:_MAX_NAMES])}{more}"
