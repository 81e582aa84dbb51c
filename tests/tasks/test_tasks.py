import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.checkpoints.names import LATEST, kept
from reid_tune.errors import InputError
from reid_tune.evaluation.features import feature_set, write_features
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import score
from reid_tune.spec.experiment import Experiment
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.export import run_export
from reid_tune.tasks.score import run_score
from reid_tune.tasks.train import run_train

Spec = Callable[..., Experiment]


def test_a_checkpoint_and_its_onnx_file_score_alike(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "folder" / "cmc.png"
    found = run_evaluate(spec(evaluate__checkpoint=str(checkpoint), evaluate__output_cmc_curve_plot=str(picture)))
    as_dict = found.as_dict()
    assert json.loads((tmp_path / "results/evaluate/metrics.json").read_text()) == as_dict
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 0.05 < found.plain.mAP < 1 and found.re_ranked is not None and found.re_ranked.mAP != found.plain.mAP
    assert as_dict["plain"]["queries"] > 10

    file, parity = run_export(None, str(checkpoint), {})
    assert file == checkpoint.with_suffix(".onnx") and parity.equal and not parity.synthetic
    exported = run_evaluate(
        spec(evaluate__checkpoint=str(file), evaluate__results_dir=str(tmp_path / "other"))
    ).as_dict()
    for kind in ("plain", "re_ranked"):
        assert exported[kind] == pytest.approx(as_dict[kind], abs=1e-3)
    assert (tmp_path / "other" / "metrics.json").is_file()

    before = file.read_bytes()
    with pytest.raises(InputError, match="exists; set export.overwrite=true"):
        run_export(None, str(checkpoint), {})
    assert file.read_bytes() == before


def test_export_as_a_spec_says(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("old")
    values = {"export__checkpoint": str(checkpoint), "export__onnx_file": str(target)}
    assert run_export(spec(**values, export__overwrite=True), None, {})[0] == target
    assert target.stat().st_size > 10_000_000


def test_without_re_ranking_there_is_one_score(checkpoint: Path, spec: Spec) -> None:
    values = {"evaluate__checkpoint": str(checkpoint), "re_ranking__re_ranking": False}
    assert run_evaluate(spec(**values)).re_ranked is None


def test_evaluate_takes_the_folders_of_its_own_section(checkpoint: Path, spec: Spec, data: Path) -> None:
    values = {"dataset__query_dataset_dir": "gone", "dataset__test_dataset_dir": "gone"}
    own = {"evaluate__query_dataset": str(data / "query"), "evaluate__test_dataset": str(data / "bounding_box_test")}
    moved = run_evaluate(spec(evaluate__checkpoint=str(checkpoint), **values, **own))
    assert moved.as_dict() == run_evaluate(spec(evaluate__checkpoint=str(checkpoint))).as_dict()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "evaluate.checkpoint is not set"),
        ({"evaluate__checkpoint": "gone.pth"}, "there is no checkpoint gone.pth"),
        ({"evaluate__checkpoint": "{}", "model__input_width": 32}, "was trained with another spec"),
        ({"evaluate__checkpoint": "{}", "dataset__query_dataset_dir": None}, "query_dataset_dir is not set"),
        ({"evaluate__checkpoint": "{}", "evaluate__output_cmc_curve_plot": "a/cmc"}, "must end in .png, .pdf or .svg"),
        ({"evaluate__checkpoint": "{}", "evaluate__num_gpus": 2}, "not supported in this version: evaluate.num_gpus"),
    ],
)
def test_what_cannot_be_evaluated_writes_nothing(
    checkpoint: Path, spec: Spec, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    values = {key: value.format(checkpoint) if isinstance(value, str) else value for key, value in values.items()}
    with pytest.raises(InputError, match=message):
        run_evaluate(spec(**values))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, "export.checkpoint is not set"),
        ({"export.checkpoint": "gone.pth"}, "there is no checkpoint gone.pth"),
        ({"export.onxx_file": "x"}, "unknown key export.onxx_file; did you mean export.onnx_file"),
        ({"export.overwrite": "perhaps"}, "export.overwrite = 'perhaps'"),
        ({"train.num_epochs": 3}, "train.num_epochs: without a spec"),
    ],
)
def test_what_cannot_be_exported(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_export(None, None, overrides)


def test_export_of_a_sweep_goes_to_the_current_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attempt = Path("runs/demo/trials/0003/attempt-1")
    attempt.mkdir(parents=True)
    checkpoint.rename(attempt / LATEST)
    Path("runs/demo/events.jsonl").touch()
    written = []
    monkeypatch.setattr("reid_tune.tasks.export.export_checkpoint", lambda *call, **more: written.append((call, more)))
    assert run_export(None, "sweep:demo/3", {})[0] == Path("demo-3.onnx")
    assert written == [((attempt / LATEST, Path("demo-3.onnx")), {"experiment": None, "overwrite": False})]


def test_train_keeps_the_spec_and_continues(spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = spec(dataset__validation="none", encryption_key="")
    trained = run_train(experiment)
    folder = tmp_path / "results/train"
    assert sorted(path.name for path in folder.iterdir()) == ["experiment.yaml", kept(0), LATEST]
    assert trained.checkpoint == folder / LATEST and load_checkpoint(trained.checkpoint).epoch == 1
    assert Experiment.model_validate(yaml.safe_load((folder / "experiment.yaml").read_text())) == spec(
        dataset__validation="none"
    )
    out, err = capsys.readouterr()
    assert out == "" and "epoch 1/1" in err and "\x1b" not in err
    assert run_train(experiment).history == trained.history
    assert "all epochs are done already" in capsys.readouterr().err


def test_a_refused_training_leaves_the_spec_of_the_last_one(spec: Spec, tmp_path: Path) -> None:
    run_train(spec(dataset__validation="none"))
    before = (tmp_path / "results/train/experiment.yaml").read_text()
    with pytest.raises(InputError, match="holds another network"):
        run_train(spec(dataset__validation="none", model__feat_dim=32))
    assert (tmp_path / "results/train/experiment.yaml").read_text() == before


def test_the_saved_spec_has_no_key(spec: Spec) -> None:
    text = spec(encryption_key="very secret").to_yaml()
    assert "secret" not in text and "encryption_key" not in text


def test_score_of_a_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ids, cameras = np.arange(40) % 8, np.arange(40) % 5
    features = random.normal(size=(8, 6))[ids] + random.normal(size=(40, 6))
    whole = feature_set(features[:10], ids[:10], cameras[:10], features[10:], ids[10:], cameras[10:])
    write_features(tmp_path / "f.npz", whole)
    plain, re_ranked = run_score(tmp_path / "f.npz", None), run_score(tmp_path / "f.npz", "6,2,0.3")
    assert list(plain) == ["mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery"]
    assert plain == score(whole).as_dict() and re_ranked == score(whole, ReRanking(6, 2, 0.3)).as_dict()
    assert plain != re_ranked
    with pytest.raises(InputError):
        run_score(tmp_path / "f.npz", "6,2")
