"""Reading of `.npz` files; uncompressed arrays are memory-mapped."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import numpy as np
from numpy.lib import format as npy

from reid_tune.errors import InputError
from reid_tune.files import display_name

__all__ = ["exact_names", "read_npz"]

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_REASON = 200  # characters of a library's error in a message
_AGAIN = "write the file again with inference or numpy.savez"
# First bytes of files that hold features in other programs.
_KINDS = {
    b"\x93NUMPY": "one array of numpy.save",
    b"\x89HDF": "an HDF5 file",
    b"MATLAB": "a MATLAB file",
    b"PAR1": "a parquet file",
    b"\x80": "a pickle, which is never loaded",
    b"\x1f\x8b": "a gzip file",
    b"[": "a JSON file",
    b"{": "a JSON file",
}


def read_npz(path: Path | str, choose: Callable[[Sequence[str]], Mapping[str, str]]) -> dict[str, np.ndarray]:
    """Read some arrays of an `.npz` file; nothing is unpickled.

    Arrays that are not compressed are mapped from the file, read-only, once their checksums have been compared.

    Args:
        path: The file.
        choose: Function from the names of all arrays to the name of each array that is wanted, by its key in the
            result; it raises `InputError` with a message that continues the path.

    Raises:
        InputError: the file is missing, damaged or not an `.npz` file, `choose` refuses its names, or a chosen array
            holds Python objects.
    """
    arrays: dict[str, np.ndarray] = {}
    location = display_name(path)
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise InputError(f"{location} is not a regular file; give an .npz file.")
        with Path(path).open("rb") as file:
            if not is_zipfile(file):
                raise InputError(f"{location} {_describe(file)}; {_AGAIN}.")
            with ZipFile(file) as archive:
                for key, name in _choose(choose, _array_names(archive, location), location).items():
                    location = f"{display_name(path)}: {display_name(name)}"
                    arrays[key] = _read(file, archive, name, location)
    except FileNotFoundError:
        raise InputError(f"the feature file {location} does not exist; give another path.") from None
    except OSError as error:
        raise InputError(f"cannot read {location}: {error.strerror or error}; give another file.") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # zipfile, the decompressors and numpy raise many types for damaged bytes
        reason = display_name(f"{type(error).__name__}: {error}")[:_REASON]
        raise InputError(f"{location} is damaged ({reason}); {_AGAIN}.") from None
    return arrays


def exact_names(*required: str) -> Callable[[Sequence[str]], Mapping[str, str]]:
    """Return a function for `read_npz` that chooses the arrays with these names."""

    def choose(names: Sequence[str]) -> Mapping[str, str]:
        if missing := [name for name in required if name not in names]:
            raise InputError(f"lacks {', '.join(missing)}; it must hold {', '.join(required)}.")
        return {name: name for name in required}

    return choose


def _describe(file: IO[bytes]) -> str:
    file.seek(0)
    head = file.read(8)
    kind = next((kind for start, kind in _KINDS.items() if head.startswith(start)), None)
    return f"is {kind}, not an .npz file" if kind else "is not an .npz file or is cut short"


def _choose(
    choose: Callable[[Sequence[str]], Mapping[str, str]], names: Sequence[str], location: str
) -> Mapping[str, str]:
    try:
        return choose(names)
    except InputError as error:
        raise InputError(f"{location} {error}") from None


def _array_names(archive: ZipFile, location: str) -> list[str]:
    members = archive.namelist()
    if any(name.rpartition("/")[2] == "data.pkl" for name in members):
        raise InputError(
            f"{location} is a file of torch.save, not an .npz file: load it in Python, and write its arrays with "
            "numpy.savez."
        )
    names = [name.removesuffix(".npy") for name in members if name.endswith(".npy")]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{location} has the array {display_name(repeated[0])} twice; {_AGAIN}.")
    return names


def _read(file: IO[bytes], archive: ZipFile, name: str, location: str) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        with warnings.catch_warnings(action="ignore"):  # numpy takes damage for a header of Python 2
            shape, fortran, dtype = _HEADERS[npy.read_magic(member)](member)
        if dtype.hasobject:
            raise InputError(f"{location} holds Python objects, which are never loaded; save plain numbers.")
        start = member.tell()
        size = math.prod(map(int, shape))
        if start + size * dtype.itemsize != info.file_size:
            raise ValueError(f"{info.file_size} bytes are not a {dtype} array of shape {shape}")
        while member.read(1 << 20):  # the end compares the checksum
            pass
    if info.compress_type == ZIP_STORED and size:
        offset = _content(file, info.header_offset) + start
        return np.memmap(file, dtype, "r", offset, shape, "F" if fortran else "C")
    with archive.open(info) as member:
        return npy.read_array(member, allow_pickle=False)


def _content(file: IO[bytes], header: int) -> int:
    """Offset of a zip member's content, after its header of 30 bytes, its name and its extra field."""
    file.seek(header + 26)
    return header + 30 + sum(int.from_bytes(file.read(2), "little") for _ in range(2))
