"""Encryption by a passphrase in the age format (age-encryption.org/v1), which the tool `age` reads too."""

import os
import subprocess
import sys
from pathlib import Path

import pyrage  # type: ignore[import-untyped]

from reid_tune.errors import InfrastructureError, InputError

__all__ = ["decrypt", "encrypt", "encrypt_in_subprocess", "is_encrypted", "is_encrypted_file"]

_MAGIC = b"age-encryption.org/v1\n"
_ENCRYPT = """
import sys
import pyrage
key, _, content = sys.stdin.buffer.read().partition(b"\\n")
sys.stdout.buffer.write(pyrage.passphrase.encrypt(content, key.decode()))
"""
_WHERE = "encryption_key, REID_TUNE_ENCRYPTION_KEY or REID_TUNE_ENCRYPTION_KEY_FILE"


def is_encrypted(head: bytes) -> bool:
    """Whether a file that begins with these bytes (32 are enough) is in the age format."""
    return head.startswith(_MAGIC)


def is_encrypted_file(path: Path) -> bool:
    """Whether there is a file in the age format."""
    try:
        with path.open("rb") as file:
            return is_encrypted(file.read(32))
    except OSError:
        return False


def encrypt(content: bytes, key: str) -> bytes:
    """The content in the age format; takes a second, which is what makes guessing a passphrase expensive.

    Raises:
        InputError: the key is no text.
    """
    return bytes(pyrage.passphrase.encrypt(content, _text(key)))


def encrypt_in_subprocess(content: bytes, key: str) -> bytes:
    """As `encrypt`, in a process of its own.

    The library holds Python's lock while it works, and training would stand still meanwhile. Key and content travel
    through a pipe.

    Raises:
        InputError: the key is no text.
        InfrastructureError: the process failed.
    """
    ended = subprocess.run(
        [sys.executable, "-c", _ENCRYPT],
        input=_text(key).encode() + b"\n" + content,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if ended.returncode:
        last_line = (ended.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise InfrastructureError(
            f"the process that encrypts a checkpoint ended with status {ended.returncode} ({last_line}): free memory "
            "and train again."
        )
    return ended.stdout


def decrypt(content: bytes, key: str | None, name: str) -> bytes:
    """The inverse of `encrypt`; `name` says in errors what is read.

    Raises:
        InputError: no key or a wrong one, or damaged content.
    """
    if key is None:
        raise InputError(f"{name} is encrypted: give its key as {_WHERE}.")
    try:
        return bytes(pyrage.passphrase.decrypt(content, _text(key)))
    except pyrage.DecryptError as error:
        reason = str(error).splitlines()[0].rstrip(".")
    if reason == "Decryption failed":
        raise InputError(f"the encryption key does not open {name}: give the one that it was written with as {_WHERE}.")
    raise InputError(f"{name} is encrypted, but damaged or not by a passphrase ({reason}).")


def _text(key: str) -> str:
    # Neither UTF-8 nor the environment of a worker can hold every string.
    if not key.isprintable():
        raise InputError(f"the encryption key has an unprintable character: give one line of text as {_WHERE}.")
    return key
