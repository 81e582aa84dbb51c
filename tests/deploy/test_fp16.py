import copy
from typing import cast

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from reid_tune.deploy.fp16 import round_to_fp16, to_fp16
from reid_tune.modeling.network import ReIDNet


def graph() -> onnx.ModelProto:
    """A product, divided by its norm."""
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["input", "weight"], ["product"]),
        helper.make_node("ReduceL2", ["product", "axes"], ["norm"], keepdims=1),
        helper.make_node("Div", ["product", "norm"], ["fc_pred"]),
    ]
    given, found = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("input", 4), ("fc_pred", 3))
    )
    weights = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([1]), "axes")]
    made = helper.make_graph(nodes, "g", [given], [found], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_the_inside_is_half_and_the_outside_is_not() -> None:
    model = graph()
    before = copy.deepcopy(model)
    half = to_fp16(model)
    assert model == before
    onnx.checker.check_model(half, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph
    kinds = {entry.name: entry.data_type for entry in inferred.initializer}
    kinds |= {
        entry.name: entry.type.tensor_type.elem_type
        for entry in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    assert kinds["weight"] == kinds["product"] == TensorProto.FLOAT16
    assert kinds["input"] == kinds["fc_pred"] == TensorProto.FLOAT
    # A sum of squares leaves the range.
    (norm,) = (node for node in inferred.node if node.op_type == "ReduceL2")
    assert kinds[norm.input[0]] == TensorProto.FLOAT

    images = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    wanted, found = (
        onnxruntime.InferenceSession(entry.SerializeToString()).run(None, {"input": images})[0]
        for entry in (model, half)
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-3)
    assert not np.array_equal(found, wanted)


class Small(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        random = np.random.default_rng(0)
        self.weight = nn.Parameter(torch.tensor(random.normal(size=(6, 12)), dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(images.flatten(1) @ self.weight.T) * self.scale
        return (hidden + 0.1) / self.scale


def half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def test_weights_and_every_result_are_rounded() -> None:
    network = Small(scale=0.3)
    images = torch.tensor(np.random.default_rng(1).normal(size=(5, 3, 2, 2)), dtype=torch.float32)
    scale = half(np.float32(0.3))
    product = half(half(images.numpy()).reshape(5, 12) @ half(network.weight.detach().numpy()).T)
    hidden = half(np.maximum(product, 0) * scale)
    wanted = half(half(hidden + np.float32(0.1)) / scale)
    before = network.weight.detach().clone()
    with torch.no_grad():
        found = round_to_fp16(cast(ReIDNet, network))(images).numpy()
        assert not np.array_equal(found, network(images).numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-3)  # a sum in another order may round to the next value
    assert np.mean(found == wanted) > 0.9
    assert torch.equal(network.weight, before)


def test_a_value_beyond_the_range_is_infinite() -> None:
    network, images = Small(scale=1e5), torch.ones(1, 3, 2, 2)
    with torch.no_grad():
        assert torch.isfinite(network(images)).all()
        assert not torch.isfinite(round_to_fp16(cast(ReIDNet, network))(images)).all()
