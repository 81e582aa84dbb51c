"""JSON objects with a checksum: damage of a line or a small file is noticed before anything is read from it."""

import json
from collections.abc import Mapping
from typing import Any
from zlib import crc32

__all__ = ["DamageError", "add_checksum", "is_intact", "read_checked"]

_SUFFIX = b',"crc32":"%08x"}'
_LENGTH = len(_SUFFIX % 0)


class DamageError(ValueError):
    """Bytes that are not a JSON object with its checksum; the message says which of the two is wrong."""


def add_checksum(content: Mapping[str, Any]) -> bytes:
    """Return a JSON object in one line, without a line break; the CRC-32 of all bytes before it is its last field.

    Args:
        content: Fields of the object, at least one.

    Raises:
        ValueError: A value is not JSON, such as NaN.
    """
    body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()[:-1]
    return body + _SUFFIX % crc32(body)


def is_intact(line: bytes) -> bool:
    """Return whether a line without its line break ends with the checksum of what comes before."""
    body = line[:-_LENGTH]
    return line[len(body) :] == _SUFFIX % crc32(body)


def read_checked(line: bytes) -> dict[str, Any]:
    """Return the fields of a JSON object that `add_checksum` has written, without the checksum.

    Args:
        line: The object, with or without a line break.

    Raises:
        DamageError: The bytes are not those that were written.
    """
    line = line.removesuffix(b"\n")
    if not is_intact(line):
        raise DamageError("its checksum is missing or wrong")
    try:
        content: dict[str, Any] = json.loads(line[:-_LENGTH] + b"}")
    except (ValueError, RecursionError):
        raise DamageError("it is not a JSON object, though its checksum is right") from None
    return content
