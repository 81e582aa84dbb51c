"""A tiny file as the exporter writes them, for those who do not look at embeddings."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

__all__ = ["write_model"]

METADATA = {
    "channels": "3",
    "height": "8",
    "width": "4",
    "dimension": "5",
    "mean": "[0.485, 0.456, 0.406]",
    "std": "[0.226, 0.226, 0.226]",
    "interpolation": "bicubic",
    "l2_normalized": "false",
    "precision": "fp32",
    "threshold_squared_distance": "0.81",
    "threshold_cosine": "0.595",
    "threshold_data": json.dumps({"folders": ['a "b" \\ c\n']}),
}


def write_model(
    path: Path, layout: str = "float_nchw", dimension: int = 5, metadata: Mapping[str, str] = METADATA
) -> Path:
    """A file whose network multiplies images of 8 x 4 pixels with a matrix of random numbers."""
    kind, shape = {"float_nchw": (TensorProto.FLOAT, [3, 8, 4]), "uint8_nhwc": (TensorProto.UINT8, [8, 4, 3])}[layout]
    weight = np.random.default_rng(0).normal(size=(96, dimension)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["fc_pred"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", kind, ["batch", *shape])],
        [helper.make_tensor_value_info("fc_pred", TensorProto.FLOAT, ["batch", dimension])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, {**metadata, "input_layout": layout, "dimension": str(dimension)})
    save(model, path)
    return path
