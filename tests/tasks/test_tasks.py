from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.checkpoints.filenames import LATEST, epoch_filename
from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.evaluation.features import make_feature_set, write_features
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import score
from reid_tune.tasks.score import run_score
from reid_tune.tasks.train import run_train

Spec = Callable[..., Experiment]


def test_train_keeps_the_spec_and_continues(spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = spec(dataset__validation="none", encryption_key="")
    latest = run_train(experiment)
    folder = tmp_path / "results/train"
    assert sorted(path.name for path in folder.iterdir()) == [
        "experiment.yaml",
        epoch_filename(0),
        LATEST,
        "status.json",
    ]
    assert latest == folder / LATEST and load_checkpoint(latest).epoch == 1
    assert Experiment.model_validate(yaml.safe_load((folder / "experiment.yaml").read_text())) == spec(
        dataset__validation="none"
    )
    out, err = capsys.readouterr()
    assert out == "" and "epoch 1/1" in err and "\x1b" not in err
    history = load_checkpoint(latest).history
    assert run_train(experiment) == latest and load_checkpoint(latest).history == history
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
    whole = make_feature_set(features[:10], ids[:10], cameras[:10], features[10:], ids[10:], cameras[10:])
    write_features(tmp_path / "f.npz", whole)
    plain, re_ranked = (run_score(tmp_path / "f.npz", setting).as_dict() for setting in (None, "6,2,0.3"))
    for result, setting in ((plain, None), (re_ranked, ReRanking(6, 2, 0.3))):
        assert result == score(whole, setting).report() | {"junk": 0}
    assert plain != re_ranked
    with pytest.raises(InputError):
        run_score(tmp_path / "f.npz", "6,2")
