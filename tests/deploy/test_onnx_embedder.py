"""ONNX files of other tools, each prepared as its own client does it, pixel by pixel."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment
from reid_tune.deploy.onnx_embedder import open_embedder
from reid_tune.deploy.onnx_file import read_onnx
from reid_tune.deploy.onnx_input import InputRequest, input_form
from reid_tune.errors import InputError

from ..helpers.onnx_files import DIMENSION, expected_embedding, write_onnx

SPEC = {
    "model.backbone": "test_resnet",
    "model.input_height": 10,
    "model.input_width": 8,
    "dataset.pixel_mean": [0.4, 0.5, 0.6],
    "dataset.pixel_std": [0.2, 0.25, 0.3],
}
SPEC_MEAN, SPEC_STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NONE, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
DYNAMIC = ("b", 3, "h", "w")


@dataclass
class Form:
    """A file, the user's values, and the preparation that the file's own client does."""

    shape: tuple[Any, ...] | None
    file: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (10, 8)
    mean: tuple[float, ...] = SPEC_MEAN
    std: tuple[float, ...] = SPEC_STD
    limit: float = 1
    bgr: bool = False
    batch: int | None = None
    said: tuple[str, ...] = ()
    side_file: Any = None
    tolerance: float = 1e-5


CAFFE_MEAN = (103.5, 116.3, 123.7)
ULTRALYTICS = {"author": "Ultralytics", "imgsz": "[7, 5]", "task": "classify"}
BOXMOT = {"model_kwargs_schema_version": 1, "model_kwargs": {"img_size": [7, 5]}, "img_size": [7, 5]}
FORMS = {
    "NVIDIA TAO, deployable": Form(DYNAMIC, {"names": ("input", "fc_pred")}, said=("10x8 (spec)", "0.4, 0.5, 0.6")),
    "TAO with a size": Form(DYNAMIC, values={"height": 8, "width": 3}, size=(8, 3), said=("8x3 (evaluate.input)",)),
    "TAO with a height": Form(DYNAMIC, values={"height": 8}, size=(8, 8), said=("8x8 (evaluate.input and spec)",)),
    "torchreid, batch of 1": Form((1, 3, 7, 5), {"output": (1, DIMENSION)}, size=(7, 5), batch=1, said=("(graph)",)),
    "batch of 4": Form((4, 3, 7, 5), {"output": (4, DIMENSION)}, size=(7, 5), batch=4),
    "BoxMOT, side file": Form(
        DYNAMIC,
        {"names": ("images", "output")},
        size=(7, 5),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        side_file=BOXMOT,
        said=("7x5 (m.onnx.metadata.json)", "0.229, 0.224, 0.225"),
    ),
    "BoxMOT, side file without a size": Form(
        (1, 3, 7, 5), {}, size=(7, 5), mean=IMAGENET_MEAN, std=IMAGENET_STD, batch=1, side_file={"img_size": None}
    ),
    "BoxMOT, padded": Form(
        DYNAMIC,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        side_file={"preprocess": "resize_pad"},
        said=("stretched and not padded as m.onnx.metadata.json says",),
    ),
    "BoxMOT, half precision": Form(
        ("b", 3, 7, 5), {"kind": TensorProto.FLOAT16, "names": ("images", "output")}, size=(7, 5), tolerance=5e-3
    ),
    "double precision": Form(DYNAMIC, {"kind": TensorProto.DOUBLE}, said=("float64 NCHW",)),
    "OpenVINO Model Zoo, BGR 0..255": Form(
        (1, 3, 7, 5),
        {"names": ("data", "reid_embedding")},
        {"channel_order": "bgr", "max_value": 255},
        (7, 5),
        NONE,
        ONE,
        255,
        bgr=True,
        batch=1,
        said=("BGR float32 NCHW, 7x5 (graph), mean [0, 0, 0] and std [1, 1, 1] of values 0..255 (evaluate.input)",),
    ),
    "FastReID, normalised in the graph": Form(
        DYNAMIC, {}, {"max_value": 255, "interpolation": "bicubic"}, (10, 8), NONE, ONE, 255, said=("bicubic (eval",)
    ),
    "Caffe's mean, BGR": Form(
        DYNAMIC,
        {},
        {"mean": CAFFE_MEAN, "channel_order": "bgr", "max_value": 255},
        mean=CAFFE_MEAN,
        std=ONE,
        limit=255,
        bgr=True,
    ),
    "BGR with the spec's values": Form(
        DYNAMIC, {}, {"channel_order": "bgr"}, mean=SPEC_MEAN[::-1], std=SPEC_STD[::-1], bgr=True
    ),
    "BoxMOT, BGR": Form(
        DYNAMIC,
        {},
        {"channel_order": "bgr"},
        (7, 5),
        IMAGENET_MEAN[::-1],
        IMAGENET_STD[::-1],
        bgr=True,
        side_file=BOXMOT,
    ),
    "one mean for all channels": Form(DYNAMIC, {}, {"mean": [0.5], "std": [0.5]}, mean=(0.5,) * 3, std=(0.5,) * 3),
    "Ultralytics, dynamic size": Form(
        DYNAMIC, {"metadata": ULTRALYTICS}, size=(7, 5), mean=NONE, std=ONE, said=("7x5 (metadata of Ultralytics)",)
    ),
    "Ultralytics with the user's values": Form(
        DYNAMIC, {"metadata": ULTRALYTICS}, {"mean": [0.5] * 3, "height": 8}, size=(8, 5), mean=(0.5,) * 3, std=ONE
    ),
    "Ultralytics, size that cannot be read": Form(
        DYNAMIC, {"metadata": ULTRALYTICS | {"imgsz": "640"}}, mean=NONE, std=ONE
    ),
    "TensorFlow, channels last": Form(("b", 7, 5, 3), {"nhwc": True}, size=(7, 5), said=("float32 NHWC",)),
    "pixels, channels last": Form(
        (1, 7, 5, 3),
        {"nhwc": True, "kind": TensorProto.UINT8},
        size=(7, 5),
        mean=NONE,
        std=ONE,
        limit=255,
        batch=1,
        said=("pixels 0..255 (graph)",),
    ),
    "pixels, channels first, BGR": Form(
        DYNAMIC,
        {"kind": TensorProto.UINT8},
        {"channel_order": "bgr", "mean": [0.5]},
        mean=NONE,
        std=ONE,
        limit=255,
        bgr=True,
        said=("pixels 0..255 (graph, no effect: evaluate.input.mean)",),
    ),
    "greyscale": Form(
        ("b", 1, 7, 5), {"channels": 1}, size=(7, 5), mean=SPEC_MEAN[:1], std=SPEC_STD[:1], said=("greyscale",)
    ),
    "all axes dynamic": Form(("b", "c", "h", "w")),
    "axes of size -1": Form((-1, 3, -1, -1)),
    "no shape at all": Form(None, {"output": None}),
    "output of rank 4": Form(DYNAMIC, {"rank": 4, "output": ("b", DIMENSION, 1, 1)}),
    "output of rank 3": Form(DYNAMIC, {"rank": 3, "output": ("b", DIMENSION, 1)}),
    "output of rank 1": Form((1, 3, 7, 5), {"rank": 1, "output": (DIMENSION,)}, size=(7, 5), batch=1),
    "a feature map as a second output": Form(DYNAMIC, {"more_outputs": [("map", ("b", 3, 6, 4))]}),
    "logits as a second output": Form(
        DYNAMIC, {"more_outputs": [("logits", ("b", DIMENSION))]}, {"onnx_output": "output"}
    ),
    "one file with its weights": Form(DYNAMIC, {"external": "weights.data"}),
    **{f"opset {opset}": Form(DYNAMIC, {"opset": opset}) for opset in (9, 11, 13, 18, 20)},
}


def experiment(values: dict[str, Any] | None = None) -> Experiment:
    keys = {("" if key == "onnx_output" else "input.") + key: value for key, value in (values or {}).items()}
    return build_experiment({}, SPEC | {f"evaluate.{key}": value for key, value in keys.items()}, "test")


def request(values: dict[str, Any] | None = None) -> InputRequest:
    return InputRequest.from_experiment(experiment(values), "evaluate")


def crops(count: int, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(count).integers(0, 256, (count, *size, channels), np.uint8)
    return np.repeat(pixels, 3 // channels, axis=3)


@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_given_what_its_own_client_gives(tmp_path: Path, name: str, capfd: Any) -> None:
    form = FORMS[name]
    path = write_onnx(tmp_path / "m.onnx", form.shape, **form.file)
    if form.side_file is not None:
        (tmp_path / "m.onnx.metadata.json").write_text(json.dumps(form.side_file))
    channels = form.file.get("channels", 3)
    model = open_embedder(path, request(form.values), threads=1)
    assert (model.dimension, model.batch) == (DIMENSION, form.batch)
    assert (model.image_spec.height, model.image_spec.width, model.image_spec.channels) == (*form.size, channels)
    for count in (1, 3, 6):
        images = crops(count, form.size, channels)
        expected = [
            expected_embedding(crop[..., :channels], form.mean, form.std, limit=form.limit, bgr=form.bgr)
            for crop in images
        ]
        embeddings = model.embed(images, batch_size=4)
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(embeddings, expected, rtol=0, atol=form.tolerance * np.abs(expected).max())
    description = input_form(read_onnx(path), request(form.values)).description
    assert "\n" not in description and [part for part in form.said if part not in description] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(TensorProto.FLOAT, np.float32), (TensorProto.FLOAT16, np.float16), (TensorProto.UINT8, np.uint8)],
)
def test_every_pixel_has_its_position_and_value(tmp_path: Path, bgr: bool, nhwc: bool, kind: int, dtype: Any) -> None:
    path = write_onnx(tmp_path / "m.onnx", (None, 7, 5, 3) if nhwc else (None, 3, 7, 5), kind=kind, nhwc=nhwc)
    form = input_form(read_onnx(path), request({"channel_order": "bgr" if bgr else "rgb", "mean": [0.1, 0.2, 0.3]}))
    images = crops(2, (7, 5))
    prepared = form.prepare(images)
    assert prepared.dtype == dtype and prepared.flags.c_contiguous
    assert prepared.shape == ((2, 7, 5, 3) if nhwc else (2, 3, 7, 5))
    for image, row, column, channel in np.ndindex(2, 7, 5, 3):
        pixel = images[image, row, column, 2 - channel if bgr else channel]
        expected = pixel if dtype == np.uint8 else pixel / 255 - (0.1, 0.2, 0.3)[channel]
        value = prepared[image, row, column, channel] if nhwc else prepared[image, channel, row, column]
        assert value == pytest.approx(expected, abs=1e-3 if dtype == np.float16 else 1e-6)


def of_one_image(path: Path) -> Path:
    """A file that declares any batch, but repeats the first row, as an export with a fixed reshape does."""
    write_onnx(path, DYNAMIC)
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "rows"
    first = helper.make_node("Gather", ["rows", "zero"], ["first"], axis=0)
    again = helper.make_node("Expand", ["first", "size"], ["output"])
    model.graph.node.extend([helper.make_node("Shape", ["rows"], ["size"]), first, again])
    model.graph.initializer.append(helper.make_tensor("zero", TensorProto.INT64, [1], [0]))
    onnx.save(model, path)
    return path


def failing_in_batches(path: Path) -> Path:
    write_onnx(path, DYNAMIC)
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("Reshape", ["rows", "shape"], ["output"]))
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [1, DIMENSION]))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("write", [of_one_image, failing_in_batches])
def test_a_graph_that_is_wrong_in_batches_is_run_image_by_image(tmp_path: Path, write: Any) -> None:
    model = open_embedder(write(tmp_path / "m.onnx"), request(), threads=1)
    images = crops(5, (10, 8))
    assert model.batch == 1 and model.is_wrong_in_batches
    expected = [expected_embedding(crop, SPEC_MEAN, SPEC_STD) for crop in images]
    np.testing.assert_allclose(model.embed(images), expected, atol=1e-4)


@pytest.mark.parametrize("error", [MemoryError(), Exception("Failed to allocate memory for requested buffer")])
def test_too_little_memory_is_a_sentence(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> None:
        raise error

    model = open_embedder(write_onnx(tmp_path / "m.onnx", DYNAMIC), request(), threads=1)
    monkeypatch.setattr(model, "_session", SimpleNamespace(run=run))
    with pytest.raises(InputError, match="memory is too small for a batch of 5: lower dataset.val_batch_size"):
        model.embed(crops(5, (10, 8)))


def test_no_images_give_no_rows(tmp_path: Path) -> None:
    model = open_embedder(write_onnx(tmp_path / "m.onnx", DYNAMIC), request(), threads=1)
    assert model.embed(crops(1, (10, 8))[:0]).shape == (0, DIMENSION)


def with_two_inputs(path: Path) -> Path:
    model = onnx.load(write_onnx(path, DYNAMIC))
    model.graph.input.append(helper.make_tensor_value_info("camera", TensorProto.INT64, ["b"]))
    onnx.save(model, path)
    return path


def with_missing_weights(path: Path) -> Path:
    write_onnx(path, DYNAMIC, external="weights.data")
    (path.parent / "weights.data").unlink()
    return path


def with_weights_outside(path: Path, location: str = "../weights.data") -> Path:
    write_onnx(path, DYNAMIC, external="weights.data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        entry = next(entry for entry in tensor.external_data if entry.key == "location")
        entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def with_weights_in_a_link(path: Path) -> Path:
    write_onnx(path, DYNAMIC, external="weights.data")
    (path.parent / "weights.data").unlink()
    (path.parent / "weights.data").symlink_to("/etc/hostname")
    return path


def test_weights_next_to_the_file_that_a_link_leads_to_are_read(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    write_onnx(blobs / "m.onnx", DYNAMIC, external="weights.data")
    (blobs / "weights.data").rename(blobs / "other name")
    (snapshot / "m.onnx").symlink_to(blobs / "m.onnx")
    (snapshot / "weights.data").symlink_to(blobs / "other name")
    assert read_onnx(snapshot / "m.onnx").weight_files == ("weights.data",)


def with_a_sequence(path: Path) -> Path:
    """A second output that is a sequence of embeddings."""
    model = onnx.load(write_onnx(path, DYNAMIC))
    model.graph.node.append(onnx.helper.make_node("SequenceConstruct", ["output"], ["list"]))
    kind = onnx.helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None)
    model.graph.output.append(kind)
    onnx.save(model, path)
    return path


def with_too_short_weights(path: Path) -> Path:
    write_onnx(path, DYNAMIC, external="weights.data")
    (path.parent / "weights.data").write_bytes(b"short")
    return path


SCORE = "`reid-tune score`"
TWO = [("logits", ("b", DIMENSION))]
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "two inputs": (with_two_inputs, {}, "has 2 inputs .input float.*, camera int64.*" + SCORE),
    "rank 3": (
        lambda path: write_onnx(path, (3, "h", "w")),
        {},
        r"takes input float\[3, h, w\], but .* 4 axes.*" + SCORE,
    ),
    "rank 5": (lambda path: write_onnx(path, ("b", 8, 3, 6, 4)), {}, "4 axes"),
    "integers": (lambda path: write_onnx(path, DYNAMIC, kind=TensorProto.INT32), {}, "takes input int32"),
    "four channels": (lambda path: write_onnx(path, ("b", 4, 6, 4)), {}, r"\[b, 4, 6, 4\], but images have 1 or 3"),
    "a feature map": (
        lambda path: write_onnx(path, DYNAMIC, output=("b", 5, 8, 4)),
        {},
        r"no output with a row of numbers for each image, but output float\[b, 5, 8, 4\].*" + SCORE,
    ),
    "a feature map of unknown size": (
        lambda path: write_onnx(path, DYNAMIC, output=None, more_outputs=[("map", ("b", "c", "h", "w"))]),
        {"onnx_output": "map"},
        r"gives map of shape \[1, 3, 10, 8\] for 1 image, .* evaluate.onnx_output.*" + SCORE,
    ),
    "a sequence": (with_a_sequence, {"onnx_output": "list"}, "list .*not one row of numbers.*" + SCORE),
    "two outputs": (
        lambda path: write_onnx(path, DYNAMIC, more_outputs=TWO),
        {},
        r"several .* output float\[batch, 5\], logits float\[b, 5\]: name one in evaluate.onnx_output",
    ),
    "unknown output": (
        lambda path: write_onnx(path, DYNAMIC),
        {"onnx_output": "embedding"},
        r"evaluate.onnx_output = 'embedding' is not an output of .*: name one of output float\[batch, 5\]",
    ),
    "one number": (
        lambda path: write_onnx(path, DYNAMIC, output=("b", 1)),
        {},
        "no output with a row of numbers",
    ),
    "other size than that of the graph": (
        lambda path: write_onnx(path, ("b", 3, 7, 5)),
        {"height": 8},
        "evaluate.input.height = 8, but .* takes images of height 7 only: leave it out",
    ),
    "wrong number of values": (
        lambda path: write_onnx(path, DYNAMIC),
        {"mean": [0.5, 0.5]},
        "evaluate.input.mean and evaluate.input.std need one value for all channels or 3, not 2",
    ),
    "order of one channel": (
        lambda path: write_onnx(path, ("b", 1, 7, 5), channels=1),
        {"channel_order": "bgr"},
        "channel_order is set, but .* takes greyscale images: leave it out",
    ),
    "a dynamic size that does not fit": (
        lambda path: write_onnx(path, ("b", "h", "w", "c"), nhwc=True),
        {},
        "does not run on a batch of 1 with images of 10x8 .*evaluate.input.height.*" + SCORE,
    ),
    "opset of the future": (
        lambda path: write_onnx(path, DYNAMIC, opset=99),
        {},
        r"opset 99 is newer than onnxruntime .*: export it with opset 20 or older.*" + SCORE,
    ),
    "missing weights": (with_missing_weights, {}, "weights in 'weights.data', which is missing: copy it into"),
    "short weights": (with_too_short_weights, {}, "onnxruntime cannot open .*" + SCORE),
    "weights outside the folder": (with_weights_outside, {}, "'../weights.data', outside its folder"),
    "weights of the system": (lambda path: with_weights_outside(path, "/etc/passwd"), {}, "'/etc/passwd', outside"),
    "a link to weights elsewhere": (with_weights_in_a_link, {}, "'weights.data', outside its folder"),
    "weights in no file": (lambda path: with_weights_outside(path, "a\0b"), {}, r"'a\\x00b', which is not the name of"),
    "weights in a very long name": (lambda path: with_weights_outside(path, "w" * 9999), {}, "is not the name of a f"),
    "weights in a folder": (lambda path: with_weights_outside(path, "."), {}, "in '.', which is missing"),
    "huge images": (lambda path: write_onnx(path, (1, 3, 10**6, 10**6)), {}, "more than 67,108,864 pixels"),
    "a broken side file": (
        lambda path: (write_onnx(path, DYNAMIC), path.with_name("m.onnx.metadata.json").write_text("{")),
        {},
        r"cannot read .*m.onnx.metadata.json .*; correct it, or remove it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_embed_is_refused_with_what_to_do(tmp_path: Path, case: str, capfd: Any) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "m.onnx"
    write, values, message = REFUSED[case]
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        open_embedder(path, request(values), threads=1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
