from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from reid_tune.deploy.graph_edits import add_l2_normalisation, add_pixel_normalisation


def identity(*shape: int) -> Any:
    """A model whose output is its input, float32 [batch, *shape]."""
    given, found = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name in ("input", "fc_pred")
    )
    made = helper.make_graph([helper.make_node("Identity", ["input"], ["fc_pred"])], "g", [given], [found])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: Any, given: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(["fc_pred"], {"input": given})[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_normalised(channels: int) -> None:
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    model = identity(channels, 4, 2)
    add_pixel_normalisation(model, mean, std)
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in shape] == ["batch", 4, 2, channels]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 2, channels), np.uint8)
    pixels[0], pixels[1] = 0, 255
    wanted = ((pixels / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(run(model, pixels), wanted, rtol=0, atol=1e-6)


def test_embeddings_have_norm_one() -> None:
    model = identity(512)
    add_l2_normalisation(model)
    rows = np.random.default_rng(0).normal(size=(4, 512)).astype(np.float32)
    rows[1] *= 60_000  # squares and their sum are far beyond half precision
    rows[2] *= 1e-9
    found = run(model, rows)
    np.testing.assert_allclose(found, rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_an_embedding_of_zeros_stays_as_it_is() -> None:
    model = identity(8)
    add_l2_normalisation(model)
    assert np.array_equal(run(model, np.zeros((2, 8), np.float32)), np.zeros((2, 8)))
