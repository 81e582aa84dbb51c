"""Feature files of the commands that score embeddings of any model, and the warnings about them."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from reid_tune.data.file_names import parse_name
from reid_tune.errors import InputError, error_context
from reid_tune.evaluation.features import FeatureSet, make_feature_set, read_features
from reid_tune.files import display_name
from reid_tune.identities import JUNK
from reid_tune.tasks.common.embedding_files import NO_CAMERA

__all__ = ["print_warnings", "read_feature_file"]

_SIDES = ("query", "gallery")
_COLUMNS = ("img_path", "identity", "camera", "subset", "embedding")
_INSTEAD = "write it again with inference, or as .npz, which holds all that a score needs"


@dataclass(frozen=True)
class _Rows:
    """Embeddings of n images.

    Attributes:
        names: Paths of the images.
        embeddings: Features [n, d].
        identities, cameras: Integers [n].
        is_query: Whether each image is a query, bool [n].
    """

    names: Sequence[str]
    embeddings: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    is_query: np.ndarray


def print_warnings(lines: Iterable[str], subject: str = "") -> None:
    """Print sentences about doubtful scores on stderr.

    Args:
        lines: The sentences.
        subject: Name of what they are about; empty where there is only one.
    """
    for line in lines:
        print(f"warning: {f'{subject}: ' if subject else ''}{line}", file=sys.stderr)


def read_feature_file(path: Path) -> FeatureSet:
    """Read the features of queries and gallery from an .npz file, or from a .parquet or .json file of `inference`.

    A .json file has only the paths of the images: their names state identity and camera, and the folder whose name has
    the word `query` holds the queries.

    Raises:
        InputError: the file is missing, damaged or of another form, or does not say which images are queries.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        return read_features(path)
    location = display_name(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError("is not a regular file; give a file of features")
        rows = reader(path)
        _check_rows(rows)
    except InputError as error:
        raise InputError(f"{location} {error}.") from None
    except FileNotFoundError:
        raise InputError(f"the feature file {location} does not exist; give another path.") from None
    except OSError as error:
        raise InputError(f"cannot read {location}: {error.strerror or error}; give another file.") from None
    except MemoryError:
        raise InputError(
            f"{location} does not fit into memory; write it as .npz, which can stay in the file."
        ) from None
    arrays = rows.embeddings, rows.identities, rows.cameras
    with error_context(location):
        return make_feature_set(*(array[side] for side in (rows.is_query, ~rows.is_query) for array in arrays))


def _check_rows(rows: _Rows) -> None:
    # One folder may be both the queries and the gallery.
    sides = np.where(rows.is_query, *_SIDES).tolist()
    if repeated := _first_repeated(zip(sides, rows.names, strict=True)):
        side, name = repeated
        raise InputError(f"has the {side} image {display_name(name)} twice; write each image once")
    for side, is_side in zip(_SIDES, (rows.is_query, ~rows.is_query), strict=True):
        if not is_side.any():
            raise InputError(f"has no {side} image; write queries and gallery into one file")


def _first_repeated(images: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    seen: set[tuple[str, str]] = set()
    for image in images:
        if image in seen:
            return image
        seen.add(image)
    return None


def _read_json(path: Path) -> _Rows:
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InputError(f"is not a JSON file or is damaged; {_INSTEAD}") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"is not a list of images with img_path and embedding; {_INSTEAD}")
    names: list[str] = []
    rows: list[np.ndarray] = []
    for number, entry in enumerate(entries):
        try:
            name, row = entry["img_path"], np.asarray(entry["embedding"])
        except (KeyError, TypeError, ValueError, RecursionError):
            raise InputError(f"has no img_path and embedding in entry {number}; {_INSTEAD}") from None
        if not isinstance(name, str) or row.ndim != 1 or row.dtype.kind not in "fiu":
            raise InputError(f"has no text img_path or no list of numbers in entry {number}; {_INSTEAD}")
        if rows and len(row) != len(rows[0]):
            raise InputError(f"has {len(row)} values in entry {number}, but {len(rows[0])} in the first; {_INSTEAD}")
        names.append(name)
        with np.errstate(over="ignore"):  # Infinity is refused later, with its row.
            rows.append(row.astype(np.float32))
    labels = np.array([parse_name(PurePath(name).name) or (JUNK, NO_CAMERA) for name in names], np.int64)
    return _Rows(names, np.stack(rows), labels[:, 0].clip(JUNK), labels[:, 1], _find_queries(names))


def _find_queries(names: Sequence[str]) -> np.ndarray:
    """Whether each image is in the one of two folders whose name has the word query, bool [n]."""
    folders = [str(PurePath(name).parent) for name in names]
    queries = {folder for folder in folders if "query" in PurePath(folder).name.lower()}
    if len(queries) != 1 or len(set(folders)) != 2:
        raise InputError(
            f"does not say which images are queries: they must be in two folders, one with the word query in its name, "
            f"but are in {', '.join(sorted(map(display_name, set(folders)))[:5])}; {_INSTEAD}"
        )
    return np.array([folder in queries for folder in folders])


def _read_parquet(path: Path) -> _Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        with path.open("rb") as stored, parquet.ParquetFile(stored, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if missing := [name for name in _COLUMNS if names.count(name) != 1]:
                listing = ", ".join(display_name(name)[:40] for name in names[:20])
                raise InputError(f"lacks {', '.join(missing)}; it must hold {', '.join(_COLUMNS)}, and has {listing}")
            table = file.read(columns=list(_COLUMNS))
        table.validate(full=True)
        columns = {name: table[name].to_pylist() for name in _COLUMNS[:-1]}
        embeddings = _stack(table["embedding"])
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"is not a parquet file of embeddings or is damaged; {_INSTEAD}") from None
    for name, kind in (("img_path", str), ("identity", int), ("camera", int), ("subset", str)):
        if not all(type(value) is kind for value in columns[name]):
            raise InputError(f"has values in {name} that are not {'texts' if kind is str else 'integers'}; {_INSTEAD}")
    if unknown := sorted(set(columns["subset"]) - set(_SIDES)):
        raise InputError(f"has the subset {display_name(unknown[0])[:40]!r}; it must be query or gallery")
    try:
        identities, cameras = (np.array(columns[name], np.int64) for name in ("identity", "camera"))
    except OverflowError:
        raise InputError(f"has identities or cameras beyond int64; {_INSTEAD}") from None
    is_query = np.array([subset == "query" for subset in columns["subset"]], bool)
    return _Rows(columns["img_path"], embeddings, identities.clip(JUNK), cameras, is_query)


def _stack(column: Any) -> np.ndarray:
    """Features [n, d] of a parquet column of lists."""
    rows = [row for chunk in column.chunks for row in chunk.to_numpy(zero_copy_only=False)]
    lengths = {len(row) if isinstance(row, np.ndarray) and row.dtype.kind == "f" else -1 for row in rows}
    if -1 in lengths:
        raise InputError(f"has embeddings that are not lists of floating-point numbers; {_INSTEAD}")
    if len(lengths) > 1:
        raise InputError(f"has embeddings of {min(lengths)} and of {max(lengths)} values; {_INSTEAD}")
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


_READERS: dict[str, Callable[[Path], _Rows]] = {".json": _read_json, ".parquet": _read_parquet}
