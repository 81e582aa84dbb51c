"""Exported ONNX file, opened with onnxruntime."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid_tune.deploy.preprocessing import ExportOptions, Preprocessing
from reid_tune.errors import InputError

__all__ = ["INPUT", "OUTPUT", "OnnxModel", "protobuf_messages"]

INPUT, OUTPUT = "input", "fc_pred"

_FLOAT, _BYTE = "tensor(float)", "tensor(uint8)"
_HINT = "export the model with reid-tune"


class OnnxModel:
    """An exported file that embeds crops.

    Only this file is read: a file with weights in further files is refused.

    Attributes:
        path: The file.
        metadata: All metadata that the exporter wrote.
        preprocessing: Preparation of its input; crops are RGB, or greyscale in three equal channels.
        options: Input layout, precision and normalisation of the file.
        dimension: Number of values in an embedding.

    Args:
        path: The file.
        threads: Threads of one operator on the CPU; 0 leaves the number to onnxruntime.
        gpu: Index of the GPU, where onnxruntime can use one.

    Raises:
        InputError: the file is not an ONNX file, keeps weights in other files, has other inputs or outputs, or lacks
            metadata or has metadata that contradict them.
    """

    def __init__(self, path: Path | str, *, threads: int = 0, gpu: int = 0) -> None:
        self.path = Path(path)
        self._session = _open(self.path, threads, gpu)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        try:
            self.preprocessing = Preprocessing.from_metadata(self.metadata)
            self.options = ExportOptions.from_metadata(self.metadata)
            self.dimension = int(self.metadata["dimension"])
        except KeyError as error:
            raise InputError(f"{path} has no metadata {error}; {_HINT}.") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} has invalid metadata ({error}); {_HINT}.") from None
        self._require_signature()

    @property
    def is_on_gpu(self) -> bool:
        """Whether onnxruntime computes on a GPU."""
        return "CUDAExecutionProvider" in self._session.get_providers()

    def embed(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Return embeddings [n, dimension] float32 of crops, of norm 1 if the options say so.

        Args:
            images: Crops [n, height, width, 3] uint8.
            batch_size: Number of crops that are computed at a time.

        Raises:
            InputError: the crops have another shape or type.
        """
        size = self.preprocessing.image_spec.height, self.preprocessing.image_spec.width
        if images.dtype != np.uint8 or images.shape[1:] != (*size, 3):
            raise InputError(
                f"the model takes crops uint8 [n, {size[0]}, {size[1]}, 3], "
                f"not {images.dtype} {list(images.shape)}; resize them."
            )
        batches = [np.empty((0, self.dimension), np.float32)]
        for start in range(0, len(images), batch_size):
            batches.append(self.run(self.preprocessing.prepare(images[start : start + batch_size])))
        return np.concatenate(batches)

    def run(self, prepared: np.ndarray) -> np.ndarray:
        """Return embeddings [n, dimension] float32 of a batch of `preprocessing.prepare`."""
        return np.asarray(self._session.run([OUTPUT], {INPUT: prepared})[0])

    def _require_signature(self) -> None:
        signature = [
            (node.name, node.type, [size if isinstance(size, int) else "batch" for size in node.shape])
            for node in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        image_spec = self.preprocessing.image_spec
        size = [image_spec.height, image_spec.width]
        inputs = {
            "float_nchw": (INPUT, _FLOAT, ["batch", image_spec.channels, *size]),
            "uint8_nhwc": (INPUT, _BYTE, ["batch", *size, image_spec.channels]),
        }
        expected = [inputs[self.preprocessing.layout], (OUTPUT, _FLOAT, ["batch", self.dimension])]
        if signature != expected:
            raise InputError(f"{self.path} has inputs and outputs {signature} in place of {expected}; {_HINT}.")


def protobuf_messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all messages in it, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if isinstance(value, Sequence) else [value]:
                yield from protobuf_messages(child)


def _open(path: Path, threads: int, gpu: int) -> Any:
    """Return an onnxruntime session of a file."""
    import onnxruntime

    content = _read(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    available = onnxruntime.get_available_providers()
    # Without TF32, which onnxruntime switches on, an embedding would be the same to 3 digits only.
    preferred = {"CUDAExecutionProvider": {"use_tf32": "0", "device_id": str(gpu)}, "CPUExecutionProvider": {}}
    providers = [(name, settings) for name, settings in preferred.items() if name in available]
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no other common base.
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"onnxruntime cannot open {path} ({reason}); {_HINT}.") from None


def _read(path: Path) -> bytes:
    """Return the content of an ONNX file that keeps all weights inside."""
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
    tensors = (message for message in protobuf_messages(model) if isinstance(message, onnx.TensorProto))
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise InputError(f"{path} keeps weights in other files, which are never read; {_HINT}.")
    return content
