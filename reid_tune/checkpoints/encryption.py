"""Encryption with a passphrase in the age format (age-encryption.org/v1), which the tool `age` also reads."""

import os
import subprocess
import sys

import pyrage  # type: ignore[import-untyped]

from reid_tune.errors import InfrastructureError, InputError

__all__ = ["decrypt", "encrypt", "encrypt_in_subprocess", "is_encrypted"]

_ENCRYPT = """
import sys
import pyrage
key, _, content = sys.stdin.buffer.read().partition(b"\\n")
sys.stdout.buffer.write(pyrage.passphrase.encrypt(content, key.decode()))
"""
_ENCRYPTED_START = b"age-encryption.org/v1\n"
_KEY_SOURCES = "encryption_key, REID_TUNE_ENCRYPTION_KEY or REID_TUNE_ENCRYPTION_KEY_FILE"


def is_encrypted(head: bytes) -> bool:
    """Whether a file that starts with these bytes (32 are enough) is encrypted, in the age format."""
    return head.startswith(_ENCRYPTED_START)


def encrypt(content: bytes, key: str) -> bytes:
    """Return the encrypted content; takes about a second by design, to make guessing a passphrase expensive.

    Raises:
        InputError: The key is not printable text.
    """
    return bytes(pyrage.passphrase.encrypt(content, _require_printable(key)))


def encrypt_in_subprocess(content: bytes, key: str) -> bytes:
    """Return the result of `encrypt`, computed in a subprocess.

    The library holds Python's global lock while it works, which would stop the training. Key and content are passed
    through a pipe.

    Raises:
        InputError: The key is not printable text.
        InfrastructureError: The subprocess failed.
    """
    result = subprocess.run(
        [sys.executable, "-c", _ENCRYPT],
        input=_require_printable(key).encode() + b"\n" + content,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if result.returncode or not is_encrypted(result.stdout):
        last_line = (result.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise InfrastructureError(
            f"the process that encrypts a checkpoint failed with status {result.returncode} ({last_line}): free memory "
            "and train again."
        )
    return result.stdout


def decrypt(content: bytes, key: str | None, name: str) -> bytes:
    """Return the decrypted content.

    Args:
        content: Result of `encrypt`.
        key: The passphrase.
        name: Name of the content in error messages.

    Raises:
        InputError: The key is missing or wrong, or the content is damaged.
    """
    if key is None:
        raise InputError(f"{name} is encrypted: give its key as {_KEY_SOURCES}.")
    try:
        return bytes(pyrage.passphrase.decrypt(content, _require_printable(key)))
    except pyrage.DecryptError as error:
        reason = str(error).splitlines()[0].rstrip(".")
    if reason == "Decryption failed":
        raise InputError(
            f"the encryption key does not open {name}: give the key that it was written with as {_KEY_SOURCES}."
        )
    raise InputError(f"{name} is encrypted, but damaged or not with a passphrase ({reason}).")


def _require_printable(key: str) -> str:
    # Not every string can be encoded as UTF-8 or stored in the environment of a worker.
    if not key.isprintable():
        raise InputError(f"the encryption key has an unprintable character: use one line of text as {_KEY_SOURCES}.")
    return key
