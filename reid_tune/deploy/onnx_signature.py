"""Input and output of the graph of an ONNX file that embeds images, whoever exported it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid_tune.deploy.onnx_file import SCORE_HINT, OnnxFile, printable
from reid_tune.errors import InputError

__all__ = ["Signature", "read_signature"]

_CHANNELS = (1, 3)
# Numbers of onnx.TensorProto.DataType.
_TYPES: dict[int, np.dtype] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
}
_EMBEDDING_TYPES = (1, 10, 11)

# Size of each axis, None where it is dynamic; None for an unknown number of axes.
_Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """The images that a graph takes, and the embeddings that it gives.

    Attributes:
        input: Name of the input.
        dtype: Type of the input: a float type, or uint8 for pixels.
        channels_last: Whether the input is [batch, height, width, channels].
        batch: Number of images that one run takes; None for any.
        channels, height, width: Size of the images; None where it is dynamic.
        output: Name of the output.
    """

    input: str
    dtype: np.dtype
    channels_last: bool
    batch: int | None
    channels: int | None
    height: int | None
    width: int | None
    output: str


def read_signature(file: OnnxFile, output: str | None, output_key: str) -> Signature:
    """Return the input and the output of a graph.

    Args:
        file: The file.
        output: Name of the output; None for the only one that can hold embeddings.
        output_key: Key of the spec that names the output, for messages.

    Raises:
        InputError: the graph does not take one batch of images, or its output is unknown or ambiguous.
    """
    graph = file.model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(map(_describe, inputs)) or "none"
        raise InputError(
            f"{file.path} has {len(inputs)} inputs ({names}), but images are given to one: export the model with one "
            f"input, {SCORE_HINT}."
        )
    (images,) = inputs
    dtype, shape = _TYPES.get(images.type.tensor_type.elem_type), _shape(images)
    if dtype is None or (shape is not None and len(shape) != 4):
        raise InputError(
            f"{file.path} takes {_describe(images)}, but images are float or uint8 with 4 axes [batch, channels, "
            f"height, width] or [batch, height, width, channels]: export the model with such an input, {SCORE_HINT}."
        )
    batch, *sizes = shape or (None,) * 4
    channels_last = sizes[0] not in _CHANNELS and sizes[2] in _CHANNELS
    height, width, channels = sizes if channels_last else (*sizes[1:], sizes[0])
    if channels is not None and channels not in _CHANNELS:
        raise InputError(
            f"{file.path} takes {_describe(images)}, but images have 1 or 3 channels, in axis 1 or 3: export the "
            f"model with such an input, {SCORE_HINT}."
        )
    name = _output_name(file, output, output_key, batch)
    return Signature(images.name, dtype, channels_last, batch, channels, height, width, name)


def _output_name(file: OnnxFile, output: str | None, output_key: str, batch: int | None) -> str:
    outputs = list(file.model.graph.output)
    listing = ", ".join(map(_describe, outputs))
    if output is not None:
        if output not in [value.name for value in outputs]:
            raise InputError(f"{output_key} = {output!r} is not an output of {file.path}: name one of {listing}.")
        return output
    candidates = [value.name for value in outputs if _may_hold_embeddings(value, batch)]
    if not candidates:
        raise InputError(
            f"{file.path} has no output with a row of numbers for each image, but {listing}: export the model with "
            f"its embeddings as an output, {SCORE_HINT}."
        )
    if len(candidates) > 1:
        raise InputError(
            f"{file.path} has several outputs that may be the embeddings, {listing}: name one in {output_key}."
        )
    return candidates[0]


def _may_hold_embeddings(value: Any, batch: int | None) -> bool:
    shape = _shape(value)
    if value.type.tensor_type.elem_type not in _EMBEDDING_TYPES:
        return False
    if shape is None:
        return True
    if len(shape) == 1:
        return batch == 1
    return sum(size not in (1, None) for size in shape[1:]) <= 1 and shape[1:].count(1) < len(shape) - 1


def _shape(value: Any) -> _Shape:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim)


def _describe(value: Any) -> str:
    """Return a value's name, type and shape."""
    shape = _shape(value)
    kind = value.type.tensor_type.elem_type
    sizes: Sequence[Any] = (
        ["..."]
        if shape is None
        else [size or dim.dim_param or "?" for size, dim in zip(shape, value.type.tensor_type.shape.dim, strict=True)]
    )
    return printable(f"{value.name} {_type_name(kind)}[{', '.join(map(str, sizes))}]")


def _type_name(kind: int) -> str:
    import onnx

    return onnx.TensorProto.DataType.Name(kind).lower() if kind in onnx.TensorProto.DataType.values() else "tensor"
