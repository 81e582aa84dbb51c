"""Reading of `.npz` files; uncompressed arrays are memory-mapped."""

import math
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import numpy as np
from numpy.lib import format as npy

from reid_tune.errors import InputError

__all__ = ["read_npz"]

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_AGAIN = "write the file again with inference or numpy.savez"


def read_npz(path: Path | str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read the arrays with the given names; nothing is unpickled.

    Arrays that are not compressed are mapped from the file, read-only, once their checksums have been compared.

    Raises:
        InputError: the file is missing, damaged or not an `.npz` file, lacks an array, or one holds Python objects.
    """
    arrays: dict[str, np.ndarray] = {}
    location = str(path)
    try:
        with Path(path).open("rb") as file:
            if not is_zipfile(file):
                raise InputError(f"{path} is not an .npz file or is cut short; {_AGAIN}.")
            with ZipFile(file) as archive:
                missing = [name for name in names if f"{name}.npy" not in archive.namelist()]
                if missing:
                    raise InputError(f"{path} lacks {', '.join(missing)}; it must hold {', '.join(names)}.")
                for name in names:
                    location = f"{path}: {name}"
                    arrays[name] = _read(file, archive, name)
    except FileNotFoundError:
        raise InputError(f"the feature file {path} does not exist; give another path.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; give another file.") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # zipfile, the decompressors and numpy raise many types for damaged bytes
        raise InputError(f"{location} is damaged ({type(error).__name__}: {error}); {_AGAIN}.") from None
    return arrays


def _read(file: IO[bytes], archive: ZipFile, name: str) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        shape, fortran, dtype = _HEADERS[npy.read_magic(member)](member)
        if dtype.hasobject:
            raise InputError(f"{file.name}: {name} holds Python objects, which are never loaded; save plain numbers.")
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
