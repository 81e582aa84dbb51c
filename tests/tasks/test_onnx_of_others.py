"""ONNX files of other tools in the tasks, with a checkpoint next to them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import load_image
from reid_tune.errors import InputError
from reid_tune.evaluation.features import read_features
from reid_tune.tasks.common.open_model import ModelFile
from reid_tune.tasks.compare import run_compare
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.inference import run_inference

from ..helpers.onnx_files import DIMENSION, expected_embedding, write_exported, write_onnx
from .conftest import Spec

DYNAMIC = ("b", 3, "h", "w")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "current.onnx", (1, 3, "h", "w"), output=(1, DIMENSION))


def test_the_encoder_of_another_tool_is_compared_with_a_checkpoint(
    spec: Spec, encoder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "current.npz", tmp_path / "exported.npz"]
    values = {"inference__input__height": 24, "inference__input__mean": [0.5], "inference__input__channel_order": "bgr"}
    for path, file in zip((encoder, checkpoint), files, strict=True):
        run_inference(spec(inference__checkpoint=str(path), inference__output_file=str(file), **values))
    lines = capsys.readouterr().err.splitlines()
    assert f"{encoder}: images are prepared as BGR float32 NCHW, 24x16 (inference.input and spec)" in lines[0]
    assert lines[2].startswith(
        "no effect: inference.input.height, inference.input.mean, inference.input.channel_order "
        f"({checkpoint} is not an ONNX file)"
    )
    names = sorted(Path(spec().dataset.query_dataset_dir).iterdir())
    form = spec(model__input_height=24)

    crops = [load_image(name, ImageSpec.from_experiment(form)) for name in names]
    expected = [expected_embedding(crop, (0.5,) * 3, (1.0,) * 3, bgr=True) for crop in crops]
    np.testing.assert_allclose(read_features(files[0]).query_features, expected, atol=1e-5)
    assert list(run_compare(files, None).scores) == ["current.npz", "exported.npz"]


def test_evaluate_names_the_preparation_of_each_file(
    spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    write_exported(tmp_path / "models" / "exported.onnx", 32, 16)
    write_onnx(tmp_path / "models" / "current.onnx", DYNAMIC)
    results = {}
    for name, values in (("plain", {}), ("bgr", {"evaluate__input__channel_order": "bgr"})):
        evaluation = run_evaluate(spec(evaluate__checkpoint=str(tmp_path / "models"), **values))
        results[name] = json.loads(json.dumps(evaluation.as_dict()))["checkpoints"]
        other, exported = (line for line in capsys.readouterr().err.splitlines() if "images are prepared as" in line)
        assert "models/exported.onnx: images are prepared as RGB" in exported and "32x16 (graph)" in exported
        assert exported.endswith("; as exported" if name == "plain" else "; no effect: evaluate.input.channel_order")
        assert f"models/current.onnx: images are prepared as {'RGB' if name == 'plain' else 'BGR'}" in other
    assert results["plain"]["exported.onnx"] == results["bgr"]["exported.onnx"]
    assert results["plain"]["current.onnx"] != results["bgr"]["current.onnx"]


@pytest.mark.parametrize("ending", ["engine", "plan", "trt", "xml", "tflite", "ETLT"])
def test_a_model_of_another_runtime_has_a_way_out(spec: Spec, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model.{ending}"
    path.write_bytes(b"any content")
    with pytest.raises(InputError, match=r"is a model of .*: give its ONNX file, .* with `reid-tune score`"):
        run_evaluate(spec(evaluate__checkpoint=str(path)))


def test_a_file_that_cannot_embed_is_refused_before_images_are_read(spec: Spec, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", DYNAMIC, more_outputs=[("logits", ("b", 9))])
    with pytest.raises(InputError, match="name one in inference.onnx_output"):
        run_inference(spec(inference__checkpoint=str(path)))


def test_a_worker_of_another_process_opens_it_alike(spec: Spec, encoder: Path) -> None:
    model = ModelFile(encoder, spec(inference__input__max_value=255), "inference")
    copy = pickle.loads(pickle.dumps(model))
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), np.uint8)
    first, second = (opener(torch.device("cpu")).embed(crops) for opener in (model, copy))
    assert copy == model
    np.testing.assert_array_equal(first, second)
