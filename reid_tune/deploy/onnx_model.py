"""ONNX file that reid-tune exported, opened with onnxruntime."""

from pathlib import Path

import numpy as np

from reid_tune.deploy.onnx_file import OnnxFile, open_session, printable, read_onnx
from reid_tune.deploy.preprocessing import ExportOptions, Preprocessing
from reid_tune.errors import InputError

__all__ = ["INPUT", "OUTPUT", "OnnxModel"]

INPUT, OUTPUT = "input", "fc_pred"

_FLOAT, _BYTE = "tensor(float)", "tensor(uint8)"
_HINT = "export the model with reid-tune"


class OnnxModel:
    """An exported file that embeds crops.

    Only this file is read: a file with weights in further files is refused.

    Attributes:
        path: The file.
        metadata: All metadata of the file, without its checksum.
        preprocessing: Preparation of its input; crops are RGB, or greyscale in three equal channels.
        options: Input layout, precision and normalisation of the file.
        dimension: Number of values in an embedding.

    Args:
        path: The file, or its content that was read already.
        threads: Threads of one operator on the CPU; 0 leaves the number to onnxruntime.
        gpu: Index of the GPU, where onnxruntime can use one.

    Raises:
        InputError: the file is not an ONNX file, is damaged, keeps weights in other files, has other inputs or
            outputs, or lacks metadata or has metadata that contradict them.
    """

    def __init__(self, path: Path | str | OnnxFile, *, threads: int = 0, gpu: int = 0) -> None:
        file = path if isinstance(path, OnnxFile) else read_onnx(path)
        self.path, self.metadata = file.path, file.metadata
        if file.weight_files:
            raise InputError(f"{self.path} keeps weights in other files, which are not read here; {_HINT}.")
        self._session = open_session(file, threads, gpu, _HINT)
        try:
            self.preprocessing = Preprocessing.from_metadata(self.metadata)
            self.options = ExportOptions.from_metadata(self.metadata)
            self.dimension = int(self.metadata["dimension"])
        except KeyError as error:
            raise InputError(f"{self.path} has no metadata {error}; {_HINT}.") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.path} has invalid metadata ({printable(str(error))}); {_HINT}.") from None
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
