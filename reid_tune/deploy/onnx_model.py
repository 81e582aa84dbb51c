"""A ReID network in an ONNX file, opened with onnxruntime."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor

from reid_tune.data.augment import Channels, Values, normalise
from reid_tune.data.images import Interpolation
from reid_tune.deploy.form import Form
from reid_tune.errors import InputError

__all__ = ["INPUT", "OUTPUT", "OnnxModel", "messages"]

INPUT, OUTPUT = "input", "fc_pred"

_FLOAT, _BYTE = "tensor(float)", "tensor(uint8)"
_EXPORT = "export the model with reid-tune"
_CHANNELS = (1, 3)


class OnnxModel:
    """Embeddings by an exported file, with what its input must look like.

    The file alone is read: weights in further files are refused.

    Attributes:
        metadata: All texts that the exporter wrote.
        height, width: Size of the crops in pixels.
        interpolation: How a crop is resized to it, bilinear or bicubic.
        dimension: Values in an embedding.
        channels: 3 for RGB, 1 for grey.
        mean, std: Of each channel in 0..1; the network's input is (value / 255 - mean) / std, which a file with
            `uint8_nhwc` computes itself.
        form: What the file takes, computes in and gives.

    Args:
        path: The file.
        threads: Threads of one operator on the CPU; 0 leaves it to onnxruntime.
        gpu: Index of the GPU, where onnxruntime can use one.

    Raises:
        InputError: no ONNX file, weights outside it, other inputs or outputs, or metadata missing or at odds with them.
    """

    def __init__(self, path: Path | str, *, threads: int = 0, gpu: int = 0) -> None:
        self.path = Path(path)
        self._session = _open(self.path, threads, gpu)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        try:
            self.height, self.width, self.dimension = (int(self.metadata[k]) for k in ("height", "width", "dimension"))
            self.channels = cast(Channels, int(self.metadata["channels"]))
            self.mean, self.std = (_values(self.metadata[key], self.channels) for key in ("mean", "std"))
            self.interpolation = cast(Interpolation, self.metadata["interpolation"])
            self.form = Form.read(self.metadata)
        except KeyError as error:
            raise InputError(f"{path} has no metadata {error}; {_EXPORT}.") from None
        except (ValueError, TypeError):
            raise InputError(f"{path} has metadata that cannot be read: {self.metadata}; {_EXPORT}.") from None
        if self.channels not in _CHANNELS or min(self.std) <= 0 or self.interpolation not in get_args(Interpolation):
            raise InputError(
                f"{path} has {self.channels} channels, std {self.std} and interpolation {self.interpolation!r}; "
                f"{_EXPORT}."
            )
        self._require_signature()

    def embed(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Embeddings [n, dimension] float32 of crops [n, height, width, 3] uint8; of norm 1 where the form says so.

        The crops are RGB; of three equal channels, grey, where the model has one channel.

        Raises:
            InputError: the crops have another shape or type.
        """
        if images.dtype != np.uint8 or images.shape[1:] != (self.height, self.width, 3):
            raise InputError(
                f"the model takes crops uint8 [n, {self.height}, {self.width}, 3], "
                f"not {images.dtype} {list(images.shape)}; resize them."
            )
        parts = [np.empty((0, self.dimension), np.float32)]
        for start in range(0, len(images), batch_size):
            batch = self.prepared(images[start : start + batch_size])
            parts.append(self._session.run([OUTPUT], {INPUT: batch})[0])
        return np.concatenate(parts)

    def normalise(self, crops: Tensor) -> Tensor:
        """The network's input [n, channels, height, width] float32 of crops as `embed` takes them."""
        return normalise(crops, cast(Values, self.mean), cast(Values, self.std), self.channels)

    def prepared(self, crops: np.ndarray) -> np.ndarray:
        """What the graph takes: a graph with `uint8_nhwc` normalises, so nobody else may."""
        if self.form.layout == "uint8_nhwc":
            return np.ascontiguousarray(crops[..., : self.channels])
        return self.normalise(torch.from_numpy(np.ascontiguousarray(crops))).contiguous().numpy()

    def _require_signature(self) -> None:
        found = [
            (node.name, node.type, [size if isinstance(size, int) else "batch" for size in node.shape])
            for node in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        taken = {
            "float_nchw": (INPUT, _FLOAT, ["batch", self.channels, self.height, self.width]),
            "uint8_nhwc": (INPUT, _BYTE, ["batch", self.height, self.width, self.channels]),
        }
        wanted = [taken[self.form.layout], (OUTPUT, _FLOAT, ["batch", self.dimension])]
        if found != wanted:
            raise InputError(f"{self.path} has inputs and outputs {found} in place of {wanted}; {_EXPORT}.")


def messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages in it, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if isinstance(value, Sequence) else [value]:
                yield from messages(child)


def _open(path: Path, threads: int, gpu: int) -> Any:
    import onnxruntime

    content = _content(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    available = onnxruntime.get_available_providers()
    # Without TF32, which onnxruntime switches on, an embedding would be the same to 3 digits only.
    wanted = {"CUDAExecutionProvider": {"use_tf32": "0", "device_id": str(gpu)}, "CPUExecutionProvider": {}}
    providers = [(name, settings) for name, settings in wanted.items() if name in available]
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no other common base
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"onnxruntime cannot open {path} ({reason}); {_EXPORT}.") from None


def _content(path: Path) -> bytes:
    import onnx

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:  # protobuf's DecodeError
        model = onnx.ModelProto()
    if not model.graph.node:
        raise InputError(f"{path} is not an ONNX file; give one that reid-tune exported.")
    tensors = (part for part in messages(model) if isinstance(part, onnx.TensorProto))
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise InputError(f"{path} keeps weights in other files, which are never read; {_EXPORT}.")
    return content


def _values(text: str, count: int) -> tuple[float, ...]:
    values = tuple(float(value) for value in json.loads(text))
    if len(values) != count or not math.isfinite(sum(values)):
        raise ValueError(text)
    return values
