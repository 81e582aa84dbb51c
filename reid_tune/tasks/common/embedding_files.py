"""Files of embeddings, written while they are computed."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from reid_tune.data.account import FileAccount, account_for_listing
from reid_tune.data.file_names import parse_name
from reid_tune.data.left_out import explain_unusable, require_complete
from reid_tune.data.listing import Reason
from reid_tune.data.records import list_image_folder
from reid_tune.errors import InputError
from reid_tune.evaluation.features import make_feature_set, write_features
from reid_tune.files import atomic_path
from reid_tune.identities import JUNK
from reid_tune.tasks.common.scored_features import IMAGES

__all__ = ["ENDINGS", "NO_CAMERA", "EmbeddingWriter", "Image", "list_images", "open_embeddings_file"]

NO_CAMERA = -1


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a query or gallery folder.

    Attributes:
        path: The file.
        identity, camera: Numbers of its name; `JUNK` and `NO_CAMERA` where the name does not parse.
        subset: Folder that it is in.
    """

    path: Path
    identity: int
    camera: int
    subset: Literal["query", "gallery"]


# Function that writes n images and their embeddings [n, dimension] float32.
EmbeddingWriter = Callable[[Sequence[Image], np.ndarray], None]


def list_images(
    folder: Path | str, subset: Literal["query", "gallery"], strict: bool = False
) -> tuple[list[Image], FileAccount]:
    """Return all images of a folder in the order of their names, and the account of its files.

    Args:
        folder: The folder; for `s3://...` its copy on this machine is listed.
        subset: Subset that the images belong to.
        strict: Whether a name that does not parse, or another file that may be an image, is an error.

    Raises:
        InputError: the folder cannot be read, or has no image; or a file is left out with `strict`.
    """
    listing = list_image_folder(folder)
    folder = listing.path
    if not listing.images:
        raise InputError(explain_unusable(folder, listing.left_out))
    numbers = {name: parse_name(name) for name in listing.images}
    if strict:
        unparsed = tuple(name for name, pair in numbers.items() if pair is None)
        require_complete(folder, {Reason.NAME: unparsed, **listing.left_out} if unparsed else listing.left_out)
    images = [Image(folder / name, *(pair or (JUNK, NO_CAMERA)), subset) for name, pair in numbers.items()]
    return images, account_for_listing(listing)


@contextmanager
def open_embeddings_file(path: Path, images: str = "") -> Iterator[EmbeddingWriter]:
    """Yield a function that adds images to a .json, .npz or .parquet file, which appears when the block succeeds.

    JSON and parquet are written at once; .npz, whose arrays are those of `FeatureSet`, is held in memory.

    Args:
        path: The file.
        images: Fingerprint of the images, which .npz and .parquet store; empty for none.

    Raises:
        InputError: the folder cannot be written; for an .npz file, an embedding is all zero.
    """
    with atomic_path(path) as temporary, _FORMATS[path.suffix.lower()](temporary, images) as write:
        yield write


@contextmanager
def _json(path: Path, _: str) -> Iterator[EmbeddingWriter]:
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
def _parquet(path: Path, fingerprint: str) -> Iterator[EmbeddingWriter]:
    import pyarrow
    from pyarrow import parquet

    kinds = {"img_path": "string", "identity": "int64", "camera": "int64", "subset": "string"}
    columns = [(name, pyarrow.type_for_alias(kind)) for name, kind in kinds.items()]
    schema = pyarrow.schema([*columns, ("embedding", pyarrow.list_(pyarrow.float32()))])
    if fingerprint:
        schema = schema.with_metadata({IMAGES: fingerprint})
    with parquet.ParquetWriter(path, schema, write_page_checksum=True) as file:

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
def _npz(path: Path, fingerprint: str) -> Iterator[EmbeddingWriter]:
    parts: list[np.ndarray] = []
    written: list[Image] = []

    def write(images: Sequence[Image], embeddings: np.ndarray) -> None:
        if not (is_nonzero := embeddings.any(axis=1)).all():
            raise InputError(f"the embedding of {images[int(is_nonzero.argmin())].path} is all zero; check the model.")
        parts.append(embeddings)
        written.extend(images)

    yield write
    query = np.array([image.subset == "query" for image in written])
    ids = np.array([max(image.identity, JUNK) for image in written], np.int64)
    cameras = np.array([image.camera for image in written], np.int64)
    rows = np.concatenate(parts)
    features = make_feature_set(*(array[side] for side in (query, ~query) for array in (rows, ids, cameras)))
    write_features(path, features, **({IMAGES: fingerprint} if fingerprint else {}))


_FORMATS: dict[str, Callable[[Path, str], AbstractContextManager[EmbeddingWriter]]] = {
    ".json": _json,
    ".npz": _npz,
    ".parquet": _parquet,
}
ENDINGS = tuple(_FORMATS)
