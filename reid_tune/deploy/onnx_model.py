"""A ReID network in an ONNX file, opened with onnxruntime."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid_tune.deploy.export_options import ExportOptions
from reid_tune.deploy.preprocessing import Preprocessing
from reid_tune.errors import InputError

__all__ = ["INPUT", "OUTPUT", "OnnxModel", "protobuf_messages"]

INPUT, OUTPUT = "input", "fc_pred"

_FLOAT, _BYTE = "tensor(float)", "tensor(uint8)"
_EXPORT = "export the model with reid-tune"


class OnnxModel:
    """Embeddings by an exported file, with what its input must look like.

    The file alone is read: weights in further files are refused.

    Attributes:
        metadata: All texts that the exporter wrote.
        preprocessing: What its input must look like; crops are RGB, or of three equal channels where it has one.
        dimension: Values in an embedding.
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
            self.preprocessing, self.options = (
                Preprocessing.from_metadata(self.metadata),
                ExportOptions.from_metadata(self.metadata),
            )
            self.dimension = int(self.metadata["dimension"])
        except KeyError as error:
            raise InputError(f"{path} has no metadata {error}; {_EXPORT}.") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} has metadata that cannot be right ({error}); {_EXPORT}.") from None
        self._require_signature()

    def embed(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Embeddings [n, dimension] float32 of crops [n, height, width, 3] uint8; of norm 1 where the form says so.

        Raises:
            InputError: the crops have another shape or type.
        """
        image_spec = self.preprocessing.image_spec
        if images.dtype != np.uint8 or images.shape[1:] != (image_spec.height, image_spec.width, 3):
            raise InputError(
                f"the model takes crops uint8 [n, {image_spec.height}, {image_spec.width}, 3], "
                f"not {images.dtype} {list(images.shape)}; resize them."
            )
        parts = [np.empty((0, self.dimension), np.float32)]
        for start in range(0, len(images), batch_size):
            batch = self.preprocessing.prepare(images[start : start + batch_size])
            parts.append(self._session.run([OUTPUT], {INPUT: batch})[0])
        return np.concatenate(parts)

    def _require_signature(self) -> None:
        found = [
            (node.name, node.type, [size if isinstance(size, int) else "batch" for size in node.shape])
            for node in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        image_spec = self.preprocessing.image_spec
        size, channels = [image_spec.height, image_spec.width], image_spec.channels
        taken = {
            "float_nchw": (INPUT, _FLOAT, ["batch", channels, *size]),
            "uint8_nhwc": (INPUT, _BYTE, ["batch", *size, channels]),
        }
        wanted = [taken[self.preprocessing.layout], (OUTPUT, _FLOAT, ["batch", self.dimension])]
        if found != wanted:
            raise InputError(f"{self.path} has inputs and outputs {found} in place of {wanted}; {_EXPORT}.")


def protobuf_messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages in it, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if isinstance(value, Sequence) else [value]:
                yield from protobuf_messages(child)


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
    tensors = (part for part in protobuf_messages(model) if isinstance(part, onnx.TensorProto))
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise InputError(f"{path} keeps weights in other files, which are never read; {_EXPORT}.")
    return content
