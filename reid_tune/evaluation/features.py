"""Embeddings of queries and gallery, and the file that stores them."""

import re
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid_tune.errors import InputError
from reid_tune.evaluation.feature_names import match_names
from reid_tune.evaluation.npz import read_npz
from reid_tune.files import atomic_path
from reid_tune.identities import is_junk

__all__ = ["FeatureSet", "make_feature_set", "read_features", "write_features"]


@dataclass(frozen=True)
class FeatureSet:
    """Embeddings of queries and gallery, q and g rows of d values; created by `make_feature_set`, which checks them.

    In the gallery are junk, which is removed before scoring, and distractors, see `reid_tune.identities`.
    """

    query_features: np.ndarray  # [q, d] float32
    query_ids: np.ndarray  # [q] int64
    query_cameras: np.ndarray  # [q] int64
    gallery_features: np.ndarray  # [g, d] float32
    gallery_ids: np.ndarray  # [g] int64
    gallery_cameras: np.ndarray  # [g] int64

    def without_junk(self) -> "FeatureSet":
        """The feature set without the junk of the gallery; the gallery may then be empty."""
        return self._clean if is_junk(self.gallery_ids).any() else self

    @cached_property
    def _clean(self) -> "FeatureSet":
        kept = ~is_junk(self.gallery_ids)
        gallery = (self.gallery_features[kept], self.gallery_ids[kept], self.gallery_cameras[kept])
        return FeatureSet(self.query_features, self.query_ids, self.query_cameras, *gallery)


_NAMES = tuple(field.name for field in fields(FeatureSet))
_ROWS = 1024  # checked at a time
_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
_INTEGER = re.compile(r"-?[0-9]{1,18}")


def make_feature_set(
    query_features: Any,
    query_ids: Any,
    query_cameras: Any,
    gallery_features: Any,
    gallery_ids: Any,
    gallery_cameras: Any,
) -> FeatureSet:
    """Check six arrays or tensors and put them into a `FeatureSet`.

    Features may have any floating or integer dtype; identities and cameras any integer dtype, or another one whose
    values are whole numbers, also as text. Dimensions of length 1 are left out where they are not needed.

    Raises:
        InputError: an array is empty or has the wrong dtype or shape, lengths or dimensions differ, or a feature
            row is all zero or not finite; the message names the array and the first bad row.
    """
    arrays = (query_features, query_ids, query_cameras, gallery_features, gallery_ids, gallery_cameras)
    checked = {
        name: _features(name, array) if name.endswith("features") else _labels(name, array)
        for name, array in zip(_NAMES, arrays, strict=True)
    }
    for side in ("query", "gallery"):
        rows = len(checked[f"{side}_features"])
        for name in (f"{side}_ids", f"{side}_cameras"):
            if len(checked[name]) != rows:
                count, columns = len(checked[name]), checked[f"{side}_features"].shape[1]
                remedy = "give one per row" if count != columns else f"write the transpose of {side}_features"
                raise InputError(f"{name} has {count} values but {side}_features has {rows} rows; {remedy}.")
    query, gallery = (checked[f"{side}_features"].shape[1] for side in ("query", "gallery"))
    if query != gallery:
        raise InputError(
            f"gallery_features has {gallery} columns but query_features has {query}; use one model for both."
        )
    return FeatureSet(**checked)


def read_features(path: Path | str) -> FeatureSet:
    """Read an `.npz` file with the six arrays of `FeatureSet`; other arrays in it are ignored, nothing is unpickled.

    The arrays may have the names of other programs, see `match_names`. Features that are float32 and not compressed
    are memory-mapped.

    Raises:
        InputError: see `read_npz`, `match_names` and `make_feature_set`.
    """
    try:
        arrays = read_npz(path, match_names)
        try:
            return make_feature_set(**arrays)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise InputError(
            f"{path} does not fit into memory; write float32 features with numpy.savez, which can stay in the file."
        ) from None


def write_features(path: Path | str, features: FeatureSet, **texts: str) -> None:
    """Write an uncompressed `.npz` file for `read_features`; it appears whole or not at all.

    Args:
        path: The file.
        features: The features.
        **texts: Further arrays of one text each, by name.
    """
    arrays: dict[str, Any] = {name: getattr(features, name) for name in _NAMES}
    arrays |= {name: np.array([text]) for name, text in texts.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _array(name: str, values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if _is_unknown_to_numpy(values) else values).numpy()
    if not isinstance(values, np.ndarray):
        raise InputError(f"{name} is a {type(values).__name__}; give a numpy array or a torch tensor.")
    if not values.size:
        raise InputError(f"{name} is empty (shape {values.shape}); give at least one image.")
    return values


def _is_unknown_to_numpy(values: Any) -> bool:
    """Whether values are a tensor of bfloat16 or of a floating-point type with still fewer digits."""
    return isinstance(values, torch.Tensor) and values.is_floating_point() and values.dtype not in _NUMPY_FLOATS


def _features(name: str, values: Any) -> np.ndarray:
    array = _array(name, values)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} has dtype {array.dtype}; give floating-point features.")
    if array.ndim > 2:  # [n, d, 1, 1] of a pooling layer
        array = array.reshape(len(array), *(length for length in array.shape[1:] if length != 1))
    if array.ndim != 2:
        raise InputError(f"{name} has shape {array.shape}; give two dimensions, one row per image.")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    finite, nonzero = np.empty((2, len(array)), bool)
    for start in range(0, len(array), _ROWS):
        part = slice(start, start + _ROWS)
        with np.errstate(invalid="ignore"):
            finite[part], nonzero[part] = np.isfinite(array[part]).all(axis=1), array[part].any(axis=1)
    for is_good, problem in ((finite, "is not finite (NaN or infinity)"), (nonzero, "is all zero")):
        if not is_good.all():
            raise InputError(
                f"row {int(is_good.argmin())} of {name} {problem} ({int((~is_good).sum())} such rows); check the model."
            )
    return array


def _labels(name: str, values: Any) -> np.ndarray:
    if _is_unknown_to_numpy(values):
        raise InputError(f"{name} has dtype {values.dtype}, which rounds numbers above 256; give integers.")
    array = _array(name, values)
    if array.ndim != 1 and array.size == max(array.shape, default=0):  # [n, 1] or [1, n] of a column or a row
        array = array.ravel()
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}; give one dimension, one value per image.")
    if array.dtype.kind not in "iu":
        array = _whole_numbers(name, array)
    beyond = array > np.iinfo(np.int64).max
    if beyond.any():
        row = int(beyond.argmax())
        raise InputError(f"row {row} of {name} is {array[row]}, beyond int64; use smaller numbers.")
    return np.array(array, np.int64)


def _whole_numbers(name: str, array: np.ndarray) -> np.ndarray:
    """Integers [n] of floating-point numbers or texts [n] that are whole numbers."""
    if array.dtype.kind not in "fSU":
        raise InputError(f"{name} has dtype {array.dtype}; give integers.")
    is_float = array.dtype.kind == "f"
    # From this number on, different whole numbers become one floating-point number.
    limit = min(2 ** (np.finfo(array.dtype).nmant + 1), 2**53) if is_float else 0
    for row, value in enumerate(array.tolist()):
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not (float(value).is_integer() if is_float else _INTEGER.fullmatch(text)):
            raise InputError(f"row {row} of {name} is {value!r}; give whole numbers.")
        if is_float and abs(value) >= limit:
            raise InputError(
                f"row {row} of {name} is {value!r}, but {array.dtype} rounds whole numbers above {limit}, so that "
                "different ones may have become equal; give integers."
            )
    return array.astype(np.int64)
