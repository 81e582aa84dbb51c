"""The task `train`: what it says, what it writes, and that its numbers are those of its checkpoints."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.config.load import build_experiment
from reid_tune.errors import InputError, RunFailedError
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.train import describe_run, run_train

from .conftest import Spec

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def status(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "results/train/status.json").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_reported_scores_are_those_of_exactly_the_saved_weights(spec: Spec, tmp_path: Path, precision: str) -> None:
    experiment = spec(train__num_epochs=3, train__precision=precision, train__optim__base_lr=0.01)
    run_train(experiment)
    lines = [line for line in status(tmp_path) if line["status"] == "RUNNING"]
    assert [(line["epoch"], line["max_epoch"]) for line in lines] == [(1, 3), (2, 3), (3, 3)]
    for line in lines:
        checkpoint = tmp_path / "results/train" / f"model_epoch_{line['epoch'] - 1:03d}.pth"
        scored = run_evaluate(spec(evaluate__checkpoint=str(checkpoint))).as_dict()["plain"]
        for theirs, ours in (("mAP", "mAP"), ("cmc_rank_1", "Rank-1"), ("cmc_rank_5", "Rank-5"), ("mINP", "mINP")):
            assert line["kpi"][theirs] == pytest.approx(scored[ours], abs=1e-6)
    assert len({line["kpi"]["mAP"] for line in lines}) > 1


@pytest.mark.parametrize("holds_out", [True, False])
def test_a_training_lists_its_folder_once(spec: Spec, monkeypatch: pytest.MonkeyPatch, holds_out: bool) -> None:
    holdout = {"dataset__validation": "holdout", "dataset__validation_fraction": 0.5}
    experiment = spec(**(holdout if holds_out else {}))
    listings: list[str] = []

    def scandir(path: Path) -> Any:
        listings.append(str(path))
        return scan(path)

    scan = os.scandir
    monkeypatch.setattr("reid_tune.data.listing.os.scandir", scandir)
    directory = run_train(experiment).parent
    assert listings.count(str(experiment.dataset.train_dataset_dir)) == 1
    assert (directory / "split").exists() is holds_out


@pytest.mark.integration
def test_two_workers_on_the_cpu_do_what_one_does(spec: Spec, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The first loss is that of the same global batch; batch norm in the backbone makes them differ a little."""
    settings = {"train__optim__name": "SGD", "dataset__batch_size": 16, "train__optim__base_lr": 1e-6}
    alone = load_checkpoint(run_train(spec(**settings, results_dir=str(tmp_path / "alone"))))
    two = load_checkpoint(run_train(spec(**settings, train__num_gpus=2)))
    err = capfd.readouterr().err
    assert "train: no GPU, the CPU" in err and "train: no GPU, 2 processes on the CPU" in err
    assert err.count("epoch 1/1") == 2, "one line from each run, not from each worker"
    assert two.history[0]["loss"] == pytest.approx(alone.history[0]["loss"], rel=0.05)
    assert two.history[0]["queries"] == alone.history[0]["queries"] > 0
    assert [line["status"] for line in status(tmp_path)] == ["STARTED", "RUNNING", "SUCCESS"]


def test_a_batch_that_cannot_be_divided_among_workers_is_refused(spec: Spec, tmp_path: Path) -> None:
    unseen = {"dataset__train_dataset_dir": "nowhere"}
    with pytest.raises(InputError, match="dataset.batch_size = 8 cannot be divided among 3 workers: the next .* is 12"):
        run_train(spec(train__num_gpus=3, **unseen))
    assert not (tmp_path / "results").exists()


@pytest.mark.integration
def test_a_diverging_worker_fails_the_run(spec: Spec, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="not finite|is nan|is inf"):
        run_train(spec(train__num_gpus=2, train__num_epochs=9, train__optim__name="SGD", train__optim__base_lr=10))
    assert status(tmp_path)[-1]["status"] == "FAILURE" and "train.clip_grad_norm" in status(tmp_path)[-1]["message"]


def test_a_resumed_training_prints_and_reports_new_epochs_alone(
    spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_train(spec())
    capsys.readouterr()
    run_train(spec(train__num_epochs=2))
    err = capsys.readouterr().err
    assert "epoch 1/2" not in err and "epoch 2/2" in err and "continues" in err
    assert [line["epoch"] for line in status(tmp_path) if line["status"] == "RUNNING"] == [1, 2]


def test_a_second_training_is_kept_out_of_the_folder(spec: Spec, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "train"
    folder.mkdir(parents=True)
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another training is running in .*train: wait for it, or set another"):
        run_train(spec())
    assert list(folder.iterdir()) == []
    os.close(handle)
    run_train(spec())


def test_a_changed_spec_is_told_and_a_changed_network_is_refused(
    spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_train(spec())
    saved = (tmp_path / "results/train/experiment.yaml").read_text()
    run_train(spec(train__optim__base_lr=0.01))
    assert (tmp_path / "results/train/experiment.yaml").read_text() == saved, "nothing was trained"
    capsys.readouterr()
    run_train(spec(train__num_epochs=2, train__optim__base_lr=0.01))
    err = " ".join(capsys.readouterr().err.split())
    assert "changed since it was written: train.num_epochs: 1 -> 2, train.optim.base_lr: 0.00035 -> 0.01" in err
    with pytest.raises(InputError, match="model.input_height is 32 in the checkpoint and 48 in the spec: use an"):
        run_train(spec(train__num_epochs=3, model__input_height=48))
    run_train(spec(train__num_epochs=3, encryption_key="late"))
    assert "it is not encrypted, and neither are the earlier ones" in " ".join(capsys.readouterr().err.split())


def test_refused_trainings_leave_no_folder(spec: Spec, tmp_path: Path) -> None:
    for values in (
        {"model__backbone": "resnet999"},
        {"dataset__batch_size": 64},
        {"model__pretrained_model_path": "x"},
    ):
        with pytest.raises(InputError):
            run_train(spec(**values))
    assert not (tmp_path / "results").exists()


def test_a_validation_of_one_identity_is_refused_before_an_image_is_read(
    spec: Spec, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = min(path.name[:4] for path in (data / "query").iterdir())
    for folder in ("query", "bounding_box_test"):
        (tmp_path / "site" / folder).mkdir(parents=True)
        for path in (data / folder).glob(f"{identity}_*"):
            (tmp_path / "site" / folder / path.name).symlink_to(path)
    monkeypatch.setattr("reid_tune.training.image_sets.load_cached_images", lambda *_, **__: pytest.fail("images read"))
    with pytest.raises(InputError, match="^the validation: every gallery image without junk has identity"):
        run_train(spec(dataset__validation=str(tmp_path / "site")))
    assert not (tmp_path / "results").exists()


def test_images_that_are_left_out_are_told(
    spec: Spec, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "bounding_box_train", tmp_path / "train")
    shutil.copy(next((tmp_path / "train").iterdir()), tmp_path / "train" / "photo (1).jpg")
    run_train(spec(dataset__train_dataset_dir=str(tmp_path / "train"), dataset__validation="none"))
    err = capsys.readouterr().err
    assert "left out: 1 of 24 files of train (1 whose name does not parse, 'photo (1).jpg')\n" in err
    line = json.loads((tmp_path / "results" / "train" / "status.json").read_text().splitlines()[0])
    assert line["data"] == {"train": {"files": 24, "used": 23, "left_out": {"name": 1}}}


def test_what_is_said_about_the_data(spec: Spec, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_train(spec(dataset__num_classes=5, dataset__validation="test"), {"dataset.num_classes"})
    err = capsys.readouterr().err
    assert "warning: dataset.num_classes = 5 is ignored, as the folder has 6 identities." in err
    assert "the test folders; what is selected by it is selected on test" in err
    run_train(spec(dataset__validation=str(data), train__num_epochs=2))
    assert "selected on test" in capsys.readouterr().err, "validation on the test folder selects on test"


def test_the_best_epoch_is_kept_by_a_blind_validation_alone(spec: Spec, tmp_path: Path, data: Path) -> None:
    best = tmp_path / "results/train/reid_model_best.pth"
    run_train(spec(dataset__validation="test"))
    assert not best.exists()
    holdout = {"dataset__validation": "holdout", "dataset__validation_fraction": 0.5}
    run_train(spec(**holdout, results_dir=str(tmp_path / "blind")))
    assert load_checkpoint(tmp_path / "blind/train/reid_model_best.pth").epoch == 1


@pytest.mark.parametrize(
    ("values", "devices", "expected"),
    [
        ({}, [CPU], "no GPU, the CPU, 1 decoding thread(s), fp32"),
        ({}, [GPU], "GPU 0, 1 decoding thread(s), fp32 (TF32), cuDNN benchmark True, deterministic False"),
        ({"train.tf32": False, "train.deterministic": True}, [GPU], "GPU 0, 1 decoding thread(s), fp32, deterministic"),
        (
            {"train.precision": "bf16", "train.accumulate": 4},
            [CPU, CPU],
            "no GPU, 2 processes on the CPU, 1 decoding thread(s), bf16, each worker's part of a batch in 4 chunks",
        ),
        (
            {"train.cuda_graphs": True},
            [CPU],
            "no GPU, the CPU, 1 decoding thread(s), fp32, no CUDA graphs, which need one worker on a GPU",
        ),
        (
            {"train.cuda_graphs": True, "train.deterministic": True},
            [GPU],
            "GPU 0, 1 decoding thread(s), fp32 (TF32), CUDA graphs, deterministic",
        ),
    ],
)
def test_the_line_names_what_a_training_uses(
    values: dict[str, object], devices: list[torch.device], expected: str
) -> None:
    assert describe_run(build_experiment({}, values, "test"), "train", devices) == f"train: {expected}"
