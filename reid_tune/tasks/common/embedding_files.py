"""Files of embeddings, written while they are computed."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from reid_tune.data.records import EXTENSIONS, NAME_FORMAT, NAME_PATTERN
from reid_tune.errors import InputError
from reid_tune.evaluation.features import make_feature_set, write_features
from reid_tune.files import atomic_path

__all__ = ["ENDINGS", "EmbeddingWriter", "Image", "list_images", "open_embeddings_file"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a query or gallery folder.

    Attributes:
        path: The file.
        identity, camera: Numbers of its name; -1 where the name does not parse.
        subset: Folder that it is in.
    """

    path: Path
    identity: int
    camera: int
    subset: Literal["query", "gallery"]


# Function that writes n images and their embeddings [n, dimension] float32.
EmbeddingWriter = Callable[[Sequence[Image], np.ndarray], None]


def list_images(folder: Path, subset: Literal["query", "gallery"], strict: bool = False) -> list[Image]:
    """Return all images of a folder in the order of their names.

    Args:
        folder: The folder.
        subset: Subset that the images belong to.
        strict: Whether a name that does not parse is an error.

    Raises:
        InputError: the folder cannot be read, or has no image; with `strict`, a name does not parse.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}; check the path.") from None
    names = [name for name in names if os.path.splitext(name)[1].lower() in EXTENSIONS]
    if not names:
        raise InputError(f"there is no image in {folder}; images are {', '.join(sorted(EXTENSIONS))} files.")
    images = []
    for name in names:
        match = NAME_PATTERN.match(name)
        if match is None and strict:
            raise InputError(
                f"{folder / name}: the name does not parse; rename it to {NAME_FORMAT}, or unset dataset.strict."
            )
        identity, camera = (int(match[1]), int(match[2])) if match else (-1, -1)
        images.append(Image(folder / name, identity, camera, subset))
    return images


@contextmanager
def open_embeddings_file(path: Path) -> Iterator[EmbeddingWriter]:
    """Yield a function that adds images to a .json, .npz or .parquet file, which appears when the block succeeds.

    JSON and parquet are written at once; .npz, whose arrays are those of `FeatureSet`, is held in memory.

    Raises:
        InputError: the folder cannot be written; for an .npz file, an embedding is all zero.
    """
    with atomic_path(path) as temporary, _FORMATS[path.suffix.lower()](temporary) as write:
        yield write


@contextmanager
def _json(path: Path) -> Iterator[EmbeddingWriter]:
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def write(images: Sequence[Image], embeddings: np.ndarray) -> None:
            nonlocal separator
            # A float32 as Python's float has enough digits to read back the same float32.
            for image, row in zip(images, embeddings.tolist(), strict=True):
                name, numbers = json.dumps(str(image.path)), json.dumps(row)
                file.write(f'{separator}  {{\n    "img_path": {name},\n    "embedding": {numbers}\n  }}')
                separator = ",\n"

        yield write
        file.write("\n]\n")


@contextmanager
def _parquet(path: Path) -> Iterator[EmbeddingWriter]:
    import pyarrow
    from pyarrow import parquet

    kinds = {"img_path": "string", "identity": "int64", "camera": "int64", "subset": "string"}
    columns = [(name, pyarrow.type_for_alias(kind)) for name, kind in kinds.items()]
    schema = pyarrow.schema([*columns, ("embedding", pyarrow.list_(pyarrow.float32()))])
    with parquet.ParquetWriter(path, schema) as file:

        def write(images: Sequence[Image], embeddings: np.ndarray) -> None:
            values = {
                "img_path": [str(image.path).encode(errors="replace").decode() for image in images],
                "identity": [image.identity for image in images],
                "camera": [image.camera for image in images],
                "subset": [image.subset for image in images],
                "embedding": list(embeddings),
            }
            file.write_table(pyarrow.table(values, schema=schema))

        yield write


@contextmanager
def _npz(path: Path) -> Iterator[EmbeddingWriter]:
    parts: list[np.ndarray] = []
    written: list[Image] = []

    def write(images: Sequence[Image], embeddings: np.ndarray) -> None:
        if not (is_nonzero := embeddings.any(axis=1)).all():
            raise InputError(f"the embedding of {images[int(is_nonzero.argmin())].path} is all zero; check the model.")
        parts.append(embeddings)
        written.extend(images)

    yield write
    query = np.array([image.subset == "query" for image in written])
    ids = np.array([max(image.identity, -1) for image in written], np.int64)
    cameras = np.array([image.camera for image in written], np.int64)
    rows = np.concatenate(parts)
    write_features(path, make_feature_set(*(array[side] for side in (query, ~query) for array in (rows, ids, cameras))))


_FORMATS: dict[str, Callable[[Path], AbstractContextManager[EmbeddingWriter]]] = {
    ".json": _json,
    ".npz": _npz,
    ".parquet": _parquet,
}
ENDINGS = tuple(_FORMATS)
