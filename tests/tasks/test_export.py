import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from reid_tune.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.encryption_key import KEY_VARIABLE
from reid_tune.config.experiment import Experiment
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.preprocessing import ExportOptions
from reid_tune.errors import InputError
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.export import run_export
from reid_tune.tasks.inference import run_inference

Spec = Callable[..., Experiment]


def test_a_checkpoint_needs_no_spec_and_a_file_is_kept(checkpoint: Path) -> None:
    file, parity = run_export(None, str(checkpoint), {})
    assert file == checkpoint.with_suffix(".onnx") and parity.equal and not parity.synthetic
    before = file.read_bytes()
    # Nothing is read before the refusal: the checkpoint is no longer there to be read.
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(InputError, match="exists; set export.overwrite=true"):
        run_export(None, str(checkpoint), {})
    assert file.read_bytes() == before


def test_export_as_a_spec_says(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    target = tmp_path / "new" / "model.onnx"
    target.parent.mkdir()
    target.write_text("old")
    values = {"export__checkpoint": str(checkpoint), "export__onnx_file": str(target), "dataset__num_classes": 857}
    experiment = spec(**values, export__overwrite=True, export__gpu_id=3, encryption_key="very secret")
    assert run_export(experiment, None, {})[0] == target
    assert target.stat().st_size > 1_000_000
    folder = tmp_path / "results/export"
    assert "secret" not in (folder / "experiment.yaml").read_text()
    lines = [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["STARTED", "SUCCESS"]


@pytest.mark.parametrize("folders", [None, "gone", ["gone", "gone too"], "{broken}"])
def test_without_training_images_the_comparison_is_synthetic(
    checkpoint: Path, spec: Spec, tmp_path: Path, folders: Any
) -> None:
    (tmp_path / "0001_c1.jpg").write_text("no image")
    folders = str(tmp_path) if folders == "{broken}" else folders
    _, parity = run_export(spec(dataset__train_dataset_dir=folders), str(checkpoint), {})
    assert parity.equal and parity.synthetic


def test_broken_training_images_are_named_and_the_others_compared(
    checkpoint: Path, spec: Spec, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((data / "bounding_box_train").iterdir())[:5]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "0001_c1.jpg"
    broken.write_text("no image")
    _, parity = run_export(spec(dataset__train_dataset_dir=str(tmp_path)), str(checkpoint), {})
    assert parity.equal and not parity.synthetic and parity.crops == 5
    assert f"left out of the comparison: cannot read the image {broken}" in capsys.readouterr().err


def test_a_grey_model_is_compared_on_grey_images(spec: Spec, tmp_path: Path) -> None:
    from .conftest import write_checkpoint

    path = write_checkpoint(tmp_path / "grey.pth", spec(model__input_channels=1))
    file, parity = run_export(None, str(path), {})
    assert parity.equal and not parity.synthetic and OnnxModel(file).preprocessing.image_spec.channels == 1


def test_a_file_in_another_form_scores_and_embeds_as_its_checkpoint(
    checkpoint: Path, spec: Spec, tmp_path: Path
) -> None:
    form = {"export.l2_normalize": True, "export.input": "uint8_nhwc", "export.precision": "fp16"}
    file, parity = run_export(None, str(checkpoint), form)
    assert parity.equal and OnnxModel(file).options == ExportOptions("uint8_nhwc", "fp16", l2_normalized=True)
    scores, embeddings = [], []
    for path in (checkpoint, file):
        output = tmp_path / f"{path.suffix}.json"
        run_inference(spec(inference__checkpoint=str(path), inference__output_file=str(output)))
        embeddings.append(np.array([row["embedding"] for row in json.loads(output.read_text())]))
        scores.append(run_evaluate(spec(evaluate__checkpoint=str(path))).as_dict()["plain"]["mAP"])
    assert scores[0] == pytest.approx(scores[1], abs=5e-3)
    plain = embeddings[0] / np.linalg.norm(embeddings[0], axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings[1], plain, rtol=0, atol=4e-3)
    np.testing.assert_allclose(np.linalg.norm(embeddings[1], axis=1), 1, atol=1e-6)


def test_a_checkpoint_without_a_spec_and_one_of_another_network_are_refused(
    checkpoint: Path, spec: Spec, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.pth"
    torch.save(load_checkpoint(checkpoint).model, bare)
    with pytest.raises(InputError, match="bare.pth is not a checkpoint of reid-tune"):
        run_export(None, str(bare), {})
    with pytest.raises(InputError, match="does not fit the network of the spec: .*projection"):
        run_export(spec(model__feat_dim=32), str(checkpoint), {})
    with pytest.raises(
        InputError, match="trained with another spec: model.backbone is 'test_resnet' in the checkpoint and 'resnet34'"
    ):
        run_export(spec(model__backbone="resnet34"), str(checkpoint), {})
    assert not list(tmp_path.rglob("*.onnx"))


THRESHOLD: dict[str, Any] = {
    "fmr": {"wanted": 0.001, "reached": 0.00098},
    "squared_distance": 0.8125,
    "cosine": 0.59375,
    "fnmr": 0.25,
    "dimension": 24,
    "data": {"features": "f.npz", "queries": 7},
}


@pytest.mark.parametrize("content", [THRESHOLD, {"plain": {}, "re_ranked": None, "threshold": THRESHOLD}])
def test_the_threshold_is_in_the_model(checkpoint: Path, tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    file, parity = run_export(None, str(checkpoint), {"export.threshold": str(path)})
    metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    found = {name.removeprefix("threshold_"): value for name, value in metadata.items() if "threshold" in name}
    assert json.loads(found.pop("data")) == THRESHOLD["data"]
    wanted = {"squared_distance": 0.8125, "cosine": 0.59375, "fmr": 0.00098, "fnmr": 0.25}
    assert {name: float(value) for name, value in found.items()} == wanted
    assert metadata.pop("crc32") and parity.equal and OnnxModel(file).metadata == metadata


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("no JSON", "is not a JSON file"),
        (b"\xff", "is not a JSON file"),
        ("[" * 20_000, "is not a JSON file"),
        ([1], "has no threshold"),
        ({"winner": {}}, "has no threshold"),
        ({"plain": {}, "re_ranked": None, "threshold": None}, "has no threshold"),
        (THRESHOLD | {"fmr": 0.001}, "has no threshold"),
        (THRESHOLD | {"cosine": 10**400}, "has no threshold"),
        (THRESHOLD | {"dimension": float("inf")}, "has no threshold"),
        (THRESHOLD | {"fnmr": float("nan")}, "has a threshold that is not finite"),
        (THRESHOLD | {"dimension": 256}, "is of features with 256 values, but the model's have 24"),
        ({"checkpoints": {}, "selected_on": "test"}, "has the metrics of a folder of models"),
    ],
)
def test_a_threshold_that_is_none_is_refused_before_the_work(
    checkpoint: Path, tmp_path: Path, content: Any, message: str
) -> None:
    path = tmp_path / "t.json"
    if content is not None:
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=message) as caught:
        target = tmp_path / "new" / "m.onnx"
        run_export(None, str(checkpoint), {"export.threshold": str(path), "export.onnx_file": str(target)})
    assert str(caught.value).startswith(f"export.threshold = {str(path)!r} ") and "\n" not in str(caught.value)
    assert not target.parent.exists()


def test_an_encrypted_checkpoint_is_opened_by_the_environment(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(checkpoint, load_checkpoint(checkpoint), "a key")
    with pytest.raises(InputError, match=KEY_VARIABLE):
        run_export(None, str(checkpoint), {})
    monkeypatch.setenv(KEY_VARIABLE, "a key")
    assert run_export(None, str(checkpoint), {})[1].equal


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, "export.checkpoint is not set"),
        ({"export.checkpoint": "gone.pth"}, "there is no checkpoint gone.pth"),
        ({"export.onxx_file": "x"}, "unknown key export.onxx_file; did you mean export.onnx_file"),
        ({"export.overwrite": "perhaps"}, "export.overwrite = 'perhaps'"),
        ({"export.precision": "int8"}, "export.precision = 'int8'"),
        ({"export.input": "uint8_nchw"}, "export.input = 'uint8_nchw'"),
        ({"train.num_epochs": 3}, "train.num_epochs: without a spec"),
        ({"export.checkpoint": "{}", "export.onnx_file": "{}/model.onnx"}, "cannot make the folder"),
        ({"export.checkpoint": "{}", "export.onnx_file": "/"}, "is a folder"),
    ],
)
def test_what_cannot_be_exported(checkpoint: Path, overrides: dict[str, Any], message: str) -> None:
    overrides = {k: v.replace("{}", str(checkpoint)) if isinstance(v, str) else v for k, v in overrides.items()}
    with pytest.raises(InputError, match=message):
        run_export(None, None, overrides)


def test_a_gpu_that_the_machine_lacks_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="export.gpu_id asks for GPU 1, but this machine has 1"):
        run_export(None, str(checkpoint), {"export.gpu_id": 1})
    assert not checkpoint.with_suffix(".onnx").exists()


def test_export_of_a_sweep_goes_to_the_current_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attempt = Path("runs/demo/trials/0003/attempt-1")
    attempt.mkdir(parents=True)
    checkpoint.rename(attempt / LATEST)
    Path("runs/demo/events.jsonl").touch()
    file, parity = run_export(None, "sweep:demo/3", {})
    assert file == Path("demo-3.onnx") and file.is_file() and parity.equal
    assert not (tmp_path / "results").exists()
