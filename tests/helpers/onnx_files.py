"""Small ONNX files as other tools write them: an image's embedding is its mean colour, weighted by a fixed matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from reid_tune.deploy.onnx_file import append_checksum

NUMPY = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
}
DIMENSION = 5


def weights(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).normal(size=(channels, DIMENSION)).astype(np.float32)


def write_onnx(
    path: Path,
    shape: Sequence[Any] | None,
    *,
    kind: int = TensorProto.FLOAT,
    nhwc: bool = False,
    channels: int = 3,
    names: tuple[str, str] = ("input", "output"),
    opset: int = 17,
    output: Sequence[Any] | None = ("batch", DIMENSION),
    rank: int = 2,
    more_outputs: Sequence[tuple[str, Sequence[Any]]] = (),
    metadata: dict[str, str] | None = None,
    external: str = "",
) -> Path:
    """A file with such an input and output; `more_outputs` are the images, or the exponentials of the embeddings."""
    source, target = names
    real = kind if kind in NUMPY else TensorProto.FLOAT
    matrix = numpy_helper.from_array(weights(channels).astype(NUMPY[real]), "matrix")
    nodes = [helper.make_node("Cast", [source], ["numbers"], to=real)]
    axes = [1, 2] if nhwc else [2, 3]
    if opset >= 18:
        nodes.append(helper.make_node("ReduceMean", ["numbers", "axes"], ["colour"], keepdims=0))
    else:
        nodes.append(helper.make_node("ReduceMean", ["numbers"], ["colour"], keepdims=0, axes=axes))
    nodes.append(helper.make_node("MatMul", ["colour", "matrix"], [target if rank == 2 else "rows"]))
    initializers = [matrix, numpy_helper.from_array(np.array(axes), "axes")]
    if rank != 2:
        initializers.append(
            numpy_helper.from_array(np.array({1: [-1], 3: [0, -1, 1], 4: [0, -1, 1, 1]}[rank]), "shape")
        )
        nodes.append(helper.make_node("Reshape", ["rows", "shape"], [target]))
    outputs = [helper.make_tensor_value_info(target, real, output)]
    for name, sizes in more_outputs:
        nodes.append(
            helper.make_node("Identity" if len(sizes) == 4 else "Exp", [source if len(sizes) == 4 else target], [name])
        )
        outputs.append(helper.make_tensor_value_info(name, kind if len(sizes) == 4 else real, sizes))
    graph = helper.make_graph(
        nodes, "encoder", [helper.make_tensor_value_info(source, kind, shape)], outputs, initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    if external:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def write_exported(path: Path, height: int, width: int) -> dict[str, str]:
    """Write a file that says what an export of reid-tune says, and return its metadata."""
    model = onnx.load(write_onnx(path, ("batch", 3, height, width)))
    metadata = {
        "channels": "3",
        "mean": "[0.5, 0.5, 0.5]",
        "std": "[0.5, 0.5, 0.5]",
        "height": str(height),
        "width": str(width),
        "interpolation": "bilinear",
        "input_layout": "float_nchw",
        "precision": "fp32",
        "l2_normalized": "false",
    }
    model.producer_name = "reid-tune"
    helper.set_model_props(model, metadata)
    path.write_bytes(append_checksum(model.SerializeToString()))
    return metadata


def expected_embedding(crop: np.ndarray, mean: Any, std: Any, *, limit: float = 1, bgr: bool = False) -> np.ndarray:
    """The embedding of one crop [H, W, channels] uint8, pixel by pixel in float64."""
    height, width, channels = crop.shape
    total = np.zeros(channels)
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                value = crop[row, column, channels - 1 - channel if bgr else channel]
                total[channel] += (value / 255 * limit - mean[channel]) / std[channel]
    return total / (height * width) @ weights(channels).astype(np.float64)
