import copy

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from reid_tune.deploy.fp16 import to_fp16


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
