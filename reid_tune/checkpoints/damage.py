"""Checks that a file's content is the one that was written."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from reid_tune.files import display_name

__all__ = ["content_digest", "find_damaged_record", "is_zip"]

_BLOCK = 1 << 24  # bytes
_NAME = 200  # characters of a record's name
_FOLDER = 0x10  # MS-DOS attribute; PyTorch reads nothing of such a record, and leaves its tensor uninitialised


def content_digest(content: Any) -> str:
    """Return a checksum of nested dictionaries, lists, tensors and plain values, as eight hexadecimal digits.

    It covers keys, values, shapes, dtypes and the bytes of all tensors. A CRC finds every change of up to 32 bits in a
    row and nearly all others (all but one in 2^32), at several GB/s. It does not protect against forgery.
    """
    return f"{_update(0, content):08x}"


def _update(checksum: int, value: Any) -> int:
    if isinstance(value, Mapping):
        checksum = zlib.crc32(b"{%d" % len(value), checksum)
        for key, part in value.items():
            checksum = _update(zlib.crc32(repr(key).encode(errors="backslashreplace"), checksum), part)
        return checksum
    if isinstance(value, list | tuple):
        checksum = zlib.crc32(b"[%d" % len(value), checksum)
        for part in value:
            checksum = _update(checksum, part)
        return checksum
    if isinstance(value, Tensor):
        checksum = zlib.crc32(f"{value.dtype}{tuple(value.shape)}".encode(), checksum)
        flat = value.detach().cpu().contiguous().reshape(-1)
        return zlib.crc32(flat.view(torch.uint8).numpy().data, checksum)
    return zlib.crc32(repr(value).encode(errors="backslashreplace"), checksum)


def is_zip(file: IO[bytes] | Path) -> bool:
    """Whether a file is a zip archive, the current form of torch.save.

    Args:
        file: The file; an open one is rewound.
    """
    try:
        return zipfile.is_zipfile(file)
    except (zipfile.BadZipFile, ValueError):  # raised for some damaged lists of records
        return True
    finally:
        if not isinstance(file, Path):
            file.seek(0)


def find_damaged_record(file: IO[bytes] | Path) -> str | None:
    """Return the first record of a zip archive, the current form of torch.save, that differs from its checksum.

    Records that were written without a checksum, which PyTorch can be told, are left out.

    Args:
        file: The archive.

    Returns:
        Name of the record as printable text; None if there is none.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for record in archive.infolist():
                if record.external_attr & _FOLDER and record.file_size:
                    return display_name(record.filename)[:_NAME]
                if record.CRC == 0 and record.file_size:
                    continue
                try:
                    with archive.open(record) as content:
                        while content.read(_BLOCK):
                            pass
                except Exception:  # damaged bytes make the decompressors raise errors of any kind
                    return display_name(record.filename)[:_NAME]
    except Exception:  # the list itself is read with errors of any kind
        return "the list of its records"
    return None
