"""Nodes before and behind a network in an ONNX graph: the normalisation of pixels, the norm of embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reid_tune.deploy.onnx_model import INPUT, OUTPUT

__all__ = ["add_l2_normalisation", "add_pixel_normalisation"]

_SMALLEST = 1e-12  # as torch.nn.functional.normalize, which leaves a zero vector as it is


def add_pixel_normalisation(model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let a float32 graph take pixels, uint8 [batch, H, W, channels], in place of normalised images.

    Args:
        model: An onnx.ModelProto with input [batch, channels, H, W], which is changed.
        mean, std: Of each channel in 0..1.
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
    """Let a graph with output [batch, D] float32 divide each embedding by its L2 norm, in float32.

    Args:
        model: An onnx.ModelProto of opset 18 or later, which is changed.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "norm/axes"))
    graph.initializer.append(numpy_helper.from_array(np.array(_SMALLEST, np.float32), "norm/smallest"))
    _rename(graph, OUTPUT, "norm/embedding")
    graph.node.extend(
        [
            helper.make_node("ReduceL2", ["norm/embedding", "norm/axes"], ["norm/norm"], keepdims=1),
            helper.make_node("Max", ["norm/norm", "norm/smallest"], ["norm/divisor"]),
            helper.make_node("Div", ["norm/embedding", "norm/divisor"], [OUTPUT]),
        ]
    )


def _rename(graph: Any, old: str, new: str) -> None:
    """Give a value another name in all nodes."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
