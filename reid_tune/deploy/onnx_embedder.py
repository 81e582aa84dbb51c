"""Embeddings by any ONNX file: an exported one, or one of another tool."""

import re
from pathlib import Path

import numpy as np

from reid_tune.deploy.onnx_file import SCORE_HINT, OnnxFile, first_line, open_session, read_onnx
from reid_tune.deploy.onnx_input import InputForm, InputRequest, input_form
from reid_tune.errors import InputError

__all__ = ["OnnxEmbedder", "describe_input", "open_embedder"]

# Embeddings of a graph differ by less between batch sizes, also in half precision.
_BATCH_TOLERANCE = 0.02
_MEMORY = re.compile(r"fail\w* to allocate|out of memory|bad_?alloc", re.IGNORECASE)


def describe_input(path: Path, request: InputRequest) -> str:
    """Return one line about the preparation of images for a file, and where it comes from.

    Raises:
        InputError: the file cannot embed images, see `input_form`.
    """
    return input_form(read_onnx(path), request).description


def open_embedder(path: Path, request: InputRequest, *, threads: int = 0, gpu: int = 0) -> "OnnxEmbedder":
    """Open an ONNX file.

    Args:
        path: The file.
        request: Values of the spec about its images.
        threads: Threads of one operator on the CPU; 0 leaves the number to onnxruntime.
        gpu: Index of the GPU, where onnxruntime can use one.

    Raises:
        InputError: the file is unusable; the message says what to do.
    """
    file = read_onnx(path)
    return OnnxEmbedder(file, input_form(file, request), request.section, threads, gpu)


class OnnxEmbedder:
    """An ONNX file of reid-tune or another tool, opened.

    A graph with a fixed batch is run as often as needed, its last batch filled up. A graph that takes any batch by its
    declaration, but computes another result or fails with more than one image, is run with one image at a time.

    Attributes:
        image_spec: Form of the images that it takes.
        dimension: Number of values in an embedding.
        batch: Number of images of every run; None for any number.
        is_wrong_in_batches: Whether the graph declares any batch, but is right for one image only.

    Raises:
        InputError: the graph does not run on such images, or its output is not one row of numbers for each image.
    """

    def __init__(self, file: OnnxFile, form: InputForm, section: str, threads: int = 0, gpu: int = 0) -> None:
        self._path, self._form, self._section = file.path, form, section
        self._session = open_session(file, threads, gpu, f"export the model in another way, {SCORE_HINT}")
        self.image_spec, self.batch, self.is_wrong_in_batches = form.image_spec, form.signature.batch, False
        size = (self.batch or 2, self.image_spec.height, self.image_spec.width, 3)
        crops = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        if self.batch:
            self.dimension = self._rows(self._run(crops), self.batch).shape[1]
            return
        singles = np.concatenate([self._rows(self._run(crops[row : row + 1]), 1) for row in range(2)])
        self.dimension = singles.shape[1]
        if not self._is_equal_in_batch(crops, singles):
            self.batch, self.is_wrong_in_batches = 1, True

    def embed(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Return embeddings [n, dimension] float32 of crops.

        Args:
            images: Crops [n, height, width, 3] uint8.
            batch_size: Number of crops that are computed at a time by a graph that takes any batch.
        """
        size = self.batch or batch_size
        embeddings = np.empty((len(images), self.dimension), np.float32)
        for start in range(0, len(images), size):
            crops = images[start : start + size]
            full = np.resize(crops, (size, *crops.shape[1:])) if self.batch else crops
            embeddings[start : start + size] = self._rows(self._run(full), len(full))[: len(crops)]
        return embeddings

    def _run(self, crops: np.ndarray) -> np.ndarray:
        signature, spec = self._form.signature, self._form.image_spec
        try:
            (output,) = self._session.run([signature.output], {signature.input: self._form.prepare(crops)})
        except Exception as error:  # onnxruntime's errors have no other common base.
            reason = first_line(error)
            if isinstance(error, MemoryError) or _MEMORY.search(reason):
                raise InputError(
                    f"{self._path}: the device's memory is too small for a batch of {len(crops)}: lower "
                    "dataset.val_batch_size."
                ) from None
            raise InputError(
                f"{self._path} does not run on a batch of {len(crops)} with images of {spec.height}x{spec.width} "
                f"({reason}): set {self._section}.input.height and {self._section}.input.width to the size "
                f"that it was trained with, {SCORE_HINT}."
            ) from None
        is_numeric = isinstance(output, np.ndarray) and output.dtype.kind in "fiub"
        return output if is_numeric else np.array(None)  # a sequence or text, refused for its shape

    def _rows(self, output: np.ndarray, count: int) -> np.ndarray:
        """Return an output as embeddings [count, D], without axes of size 1."""
        shape = (1, *output.shape) if output.ndim == 1 and count == 1 else output.shape
        if output.ndim == 0 or shape[0] != count or sum(size > 1 for size in shape[1:]) != 1:
            raise InputError(
                f"{self._path} gives {self._form.signature.output} of shape {list(output.shape)} for {count} "
                f"image{'s' if count > 1 else ''}, which is not one row of numbers for each: name another output in "
                f"{self._section}.onnx_output, export the model with its embeddings as an output, {SCORE_HINT}."
            )
        with np.errstate(over="ignore"):  # an infinite embedding is refused later, with its image
            return output.reshape(count, -1).astype(np.float32)

    def _is_equal_in_batch(self, crops: np.ndarray, singles: np.ndarray) -> bool:
        try:
            together = self._rows(self._run(crops), len(crops))
        except InputError:
            return False
        if not np.isfinite(singles).all():
            return True  # there is nothing to compare
        tolerance = _BATCH_TOLERANCE * float(np.abs(singles).max())
        return together.shape == singles.shape and np.allclose(together, singles, 0, tolerance)
