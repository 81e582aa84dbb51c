"""Nodes before and after a network in an ONNX graph: normalisation of pixels, L2 normalisation of embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reid_tune.deploy.onnx_model import INPUT, OUTPUT

__all__ = ["add_l2_normalisation", "add_pixel_normalisation"]

_SMALLEST_NORM = 1e-12  # As in torch.nn.functional.normalize, which leaves a zero vector as it is.


def add_pixel_normalisation(model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
    """Change the input of a float32 graph from normalised images to pixels, uint8 [batch, H, W, channels].

    Args:
        model: An onnx.ModelProto with input [batch, channels, H, W], which is changed in place.
        mean, std: Mean and standard deviation of each channel in 0..1.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    (images,) = graph.input
    batch, channels, height, width = (size.dim_param or size.dim_value for size in images.type.tensor_type.shape.dim)
    images.CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [batch, height, width, channels]))
    # One product and one sum, each rounded once, as in training.
    scale = 1 / (255 * np.array(std))
    shift = -255 * np.array(mean) * scale
    for name, values in (("pixels/scale", scale), ("pixels/shift", shift)):
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    _rename(graph, INPUT, "pixels/normalised")
    nodes = (
        helper.make_node("Cast", [INPUT], ["pixels/float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels/float", "pixels/scale"], ["pixels/scaled"]),
        helper.make_node("Add", ["pixels/scaled", "pixels/shift"], ["pixels/shifted"]),
        helper.make_node("Transpose", ["pixels/shifted"], ["pixels/normalised"], perm=[0, 3, 1, 2]),
    )
    for node in reversed(nodes):
        graph.node.insert(0, node)


def add_l2_normalisation(model: Any) -> None:
    """Divide each embedding by its L2 norm, in float32.

    Args:
        model: An onnx.ModelProto of opset 18 or later with output [batch, D] float32, which is changed in place.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "norm/axes"))
    graph.initializer.append(numpy_helper.from_array(np.array(_SMALLEST_NORM, np.float32), "norm/smallest"))
    _rename(graph, OUTPUT, "norm/embedding")
    graph.node.extend(
        [
            helper.make_node("ReduceL2", ["norm/embedding", "norm/axes"], ["norm/norm"], keepdims=1),
            helper.make_node("Max", ["norm/norm", "norm/smallest"], ["norm/divisor"]),
            helper.make_node("Div", ["norm/embedding", "norm/divisor"], [OUTPUT]),
        ]
    )


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a value in all nodes."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
