import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from reid_tune.deploy.graph_edits import add_pixel_normalisation
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.errors import InputError

METADATA = {
    "channels": "3",
    "mean": "[0.5, 0.25, 0.0]",
    "std": "[0.5, 0.25, 1.0]",
    "height": "2",
    "width": "1",
    "dimension": "3",
    "interpolation": "bilinear",
    "input_layout": "float_nchw",
    "precision": "fp32",
    "l2_normalized": "false",
}


def write(
    path: Path,
    metadata: dict[str, str | None] | None = None,
    names: tuple[str, str] = ("input", "fc_pred"),
    shape: tuple[Any, ...] = ("batch", 3, 2, 1),
    kind: int = TensorProto.FLOAT,
) -> Path:
    """A file whose embedding of a crop is its mean colour."""
    source, target = names
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", [source, "axes"], [target], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info(source, kind, shape)],
        [helper.make_tensor_value_info(target, kind, (shape[0], shape[1]))],
        [axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    kept = {key: value for key, value in {**METADATA, **(metadata or {})}.items() if value is not None}
    helper.set_model_props(model, kept)
    onnx.save(model, path)
    return path


def test_embeds_by_its_own_metadata(tmp_path: Path) -> None:
    model = OnnxModel(write(tmp_path / "m.onnx"))
    crops = np.array([[[[255, 0, 51]], [[0, 255, 102]]]], np.uint8)
    np.testing.assert_allclose(model.embed(crops), [[0.0, 1.0, 0.3]], atol=1e-6)
    assert model.dimension == 3 and model.preprocessing.image_spec.std == (0.5, 0.25, 1.0)


def test_grey_crops_are_normalised_by_their_one_value(tmp_path: Path) -> None:
    grey = {"channels": "1", "mean": "[0.25]", "std": "[0.5]", "dimension": "1"}
    model = OnnxModel(write(tmp_path / "m.onnx", grey, shape=("batch", 1, 2, 1)))
    crops = np.array([[[[51, 51, 51]], [[102, 102, 102]]]], np.uint8)
    np.testing.assert_allclose(model.embed(crops), [[(0.3 - 0.25) / 0.5]], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_that_takes_pixels_gets_pixels(tmp_path: Path, channels: int) -> None:
    values = json.dumps([0.5] * channels)
    metadata = {"channels": str(channels), "mean": values, "std": values, "dimension": str(channels)}
    model = onnx.load(write(tmp_path / "m.onnx", metadata, shape=("batch", channels, 2, 1)))
    add_pixel_normalisation(model, [0.5] * channels, [0.5] * channels)
    helper.set_model_props(model, METADATA | metadata | {"input_layout": "uint8_nhwc"})
    onnx.save(model, tmp_path / "m.onnx")
    crops = np.array([[[[255, 255, 255]], [[51, 51, 51]]]], np.uint8)
    # Normalised once, by the graph: 2 * 0.6 - 1; a second time would give -1.4.
    np.testing.assert_allclose(OnnxModel(tmp_path / "m.onnx").embed(crops), [[0.2] * channels], atol=1e-6)


@pytest.mark.parametrize(
    "crops", [np.zeros((1, 2, 1, 3), np.float32), np.zeros((1, 1, 2, 3), np.uint8), np.zeros((2, 1, 3), np.uint8)]
)
def test_refuses_other_crops(tmp_path: Path, crops: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"crops uint8 \[n, 2, 1, 3\], not"):
        OnnxModel(write(tmp_path / "m.onnx")).embed(crops)


WRONG_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "cannot read"),
    "a folder": (lambda path: path.mkdir(), "cannot read"),
    "empty": (lambda path: path.write_bytes(b""), "not an ONNX file"),
    "text": (lambda path: path.write_text("no model at all"), "not an ONNX file"),
    "cut": (lambda path: path.write_bytes(write(path).read_bytes()[:-40]), "not an ONNX file"),
    "other input": (lambda path: write(path, names=("images", "fc_pred")), "inputs and outputs"),
    "other output": (lambda path: write(path, names=("input", "logits")), "inputs and outputs"),
    "fixed batch": (lambda path: write(path, shape=(4, 3, 2, 1)), "inputs and outputs"),
    "dynamic size": (lambda path: write(path, shape=("batch", 3, "h", 1)), "inputs and outputs"),
    "half precision": (lambda path: write(path, kind=TensorProto.FLOAT16), "inputs and outputs"),
    "other dimension": (lambda path: write(path, {"dimension": "4"}), "inputs and outputs"),
    "no metadata": (lambda path: write(path, dict.fromkeys(METADATA)), "has no metadata 'height'"),
    "no mean": (lambda path: write(path, {"mean": None}), "has no metadata 'mean'"),
    "bad number": (lambda path: write(path, {"width": "wide"}), "has invalid metadata"),
    "no channels": (lambda path: write(path, {"channels": None}), "has no metadata 'channels'"),
    "two channels": (lambda path: write(path, {"channels": "2", "mean": "[0, 1]", "std": "[1, 1]"}), "2 channels"),
    "one channel only": (lambda path: write(path, {"channels": "1", "mean": "[0]", "std": "[1]"}), "inputs and outp"),
    "two colours": (lambda path: write(path, {"mean": "[0, 1]"}), "has invalid metadata"),
    "not finite": (lambda path: write(path, {"mean": "[0, NaN, 1]"}), "has invalid metadata"),
    "zero deviation": (lambda path: write(path, {"std": "[1, 0, 1]"}), "channels, std .1.0, 0.0"),
    "no layout": (lambda path: write(path, {"input_layout": None}), "has no metadata 'input_layout'"),
    "other layout": (lambda path: write(path, {"input_layout": "uint8"}), "has invalid metadata"),
    "layout of another graph": (lambda path: write(path, {"input_layout": "uint8_nhwc"}), "inputs and outputs"),
    "no precision": (lambda path: write(path, {"precision": None}), "has no metadata 'precision'"),
    "other precision": (lambda path: write(path, {"precision": "int8"}), "has invalid metadata"),
    "no norm": (lambda path: write(path, {"l2_normalized": None}), "has no metadata 'l2_normalized'"),
    "other norm": (lambda path: write(path, {"l2_normalized": "1"}), "has invalid metadata"),
    "other interpolation": (lambda path: write(path, {"interpolation": "nearest"}), "interpolation 'nearest'"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_refuses_other_files_in_one_sentence(tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    make, reason = WRONG_FILES[case]
    make(path)
    with pytest.raises(InputError, match=reason) as caught:
        OnnxModel(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_refuses_an_operator_that_onnxruntime_lacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(write(tmp_path / "m.onnx"))
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="^onnxruntime cannot open .*NoSuchOperator[^\n]*$"):
        OnnxModel(tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_never_reads_weights_of_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    model = onnx.load(write(tmp_path / "m.onnx"))
    axes = model.graph.initializer[0]
    (tmp_path / "axes.data").write_bytes(onnx.numpy_helper.to_array(axes).tobytes())
    axes.CopyFrom(helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3], raw=False))
    axes.ClearField("int64_data")
    axes.data_location = TensorProto.EXTERNAL
    axes.external_data.add(key="location", value="axes.data")
    if place == "attribute":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["axes"], value=axes))
        del model.graph.initializer[:]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="keeps weights in other files"):
        OnnxModel(tmp_path / "m.onnx")
