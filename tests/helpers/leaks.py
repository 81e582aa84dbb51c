"""Where a secret has been written down, in whatever usual spelling."""

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["command_lines", "files", "leaks", "spellings"]


def spellings(secret: str) -> set[bytes]:
    """The secret as it is, in UTF-16, in hexadecimal digits and in base64 at each of its three alignments."""
    plain = secret.encode()
    found = {plain, secret.encode("utf-16-le"), plain.hex().encode(), plain.hex().upper().encode()}
    for before in range(3):
        coded = base64.b64encode(bytes(before) + plain)
        # Digits at both ends depend on the neighbours too.
        found.add(coded[(0, 2, 3)[before] : len(coded) // 4 * 4 - 4])
    return found | {text.translate(bytes.maketrans(b"+/", b"-_")) for text in found}


def files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """All files below a folder in which others may be at work."""
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()
        except FileNotFoundError:
            continue


def leaks(secret: str, folder: Path) -> list[str]:
    """Files below a folder that hold a secret, or have it in their name."""
    wanted = spellings(secret)
    return [str(path) for path, content in files(folder) if any(w in content or w in bytes(path) for w in wanted)]


def command_lines(pid: int) -> list[str]:
    """The command lines of a process and of all that it has started."""
    found = []
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(process.cmdline()))
    return found
