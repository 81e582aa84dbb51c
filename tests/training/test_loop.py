"""Whole runs: files, reports, resuming, validation and failures."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, strip_checkpoint
from reid_tune.config.experiment import Experiment
from reid_tune.data.split_files import write_split
from reid_tune.errors import InputError, RunFailedError
from reid_tune.training.data_split import list_training_folders, load_split
from reid_tune.training.loop import TrainingResult, train

from ..helpers.small_networks import SMALL_VIT
from .conftest import Build, Recorder, draw

LATEST = "reid_model_latest.pth"


def untimed(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in epoch.items() if name != "images_per_second"} for epoch in history]


def equal(one: Any, other: Any) -> bool:
    """Whether two nested states are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.fixture(scope="module")
def whole(build: Build, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingResult, Recorder]:
    """An uninterrupted run of three epochs with a validation split."""
    recorder = Recorder()
    return train(build(dataset__validation="holdout"), recorder, tmp_path_factory.mktemp("whole")), recorder


def test_a_run_writes_its_checkpoints(whole: tuple[TrainingResult, Recorder]) -> None:
    trained, _ = whole
    folder = trained.checkpoint.parent
    assert sorted(os.listdir(folder)) == ["model_epoch_001.pth", "model_epoch_002.pth", LATEST]
    latest = load_checkpoint(trained.checkpoint)
    assert trained.checkpoint == folder / LATEST
    assert latest.epoch == 3 and latest.history == trained.history
    assert load_checkpoint(folder / "model_epoch_001.pth").epoch == 2
    assert load_checkpoint(folder / "model_epoch_001.pth").history == trained.history[:2]
    assert latest.spec["train"]["num_epochs"] == 3 and "encryption_key" not in latest.spec
    assert len(latest.identities) == latest.model["classifier.weight"].shape[0] < 12


def test_a_run_reports_every_epoch(whole: tuple[TrainingResult, Recorder]) -> None:
    trained, recorder = whole
    steps = round(len(load_checkpoint(trained.checkpoint).identities) * 6 / 16)
    assert recorder.started == (steps, 1, 3)
    assert recorder.reports == trained.history
    assert [report["epoch"] for report in recorder.reports] == [1, 2, 3]
    assert [report["lr"] for report in recorder.reports] == pytest.approx([3.815e-5, 7.28e-5, 1.0745e-4])
    for report in recorder.reports:
        assert report["loss"] == pytest.approx(report["loss/identity"] + report["loss/triplet"], rel=1e-5)
        assert report["images_per_second"] > 0
    assert [step for step, _ in recorder.steps] == [steps] * 3
    assert all(math.isfinite(loss) for _, loss in recorder.steps)
    last = recorder.reports[-1]
    assert 0 < last["mAP"] <= 1 and {"mINP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery"} <= last.keys()


def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(
    whole: tuple[TrainingResult, Recorder], build: Build, tmp_path: Path
) -> None:
    experiment = build(dataset__validation="holdout")
    with pytest.raises(InterruptedError):
        train(experiment, Recorder(stop_after=1), tmp_path)
    interrupted = load_checkpoint(tmp_path / LATEST)
    assert interrupted.epoch == 1
    torch.rand(7)
    recorder = Recorder()
    trained = train(experiment, recorder, tmp_path)
    assert recorder.started is not None and recorder.started[1:] == (2, 3)
    assert recorder.reports[0] == interrupted.history[0]
    assert [report["epoch"] for report in recorder.reports] == [1, 2, 3]
    assert untimed(trained.history) == untimed(whole[0].history)
    resumed, undisturbed = load_checkpoint(trained.checkpoint), load_checkpoint(whole[0].checkpoint)
    assert equal(resumed.model, undisturbed.model) and equal(resumed.optimizer, undisturbed.optimizer)
    assert not equal(interrupted.model, undisturbed.model)


def test_a_finished_run_only_reports_again(whole: tuple[TrainingResult, Recorder], build: Build) -> None:
    trained, recorder = whole[0], Recorder()
    before = trained.checkpoint.stat().st_mtime_ns
    again = train(build(dataset__validation="holdout"), recorder, trained.checkpoint.parent)
    assert recorder.reports == again.history == trained.history
    assert recorder.started is not None and recorder.started[1] == 4
    assert recorder.steps == [] and trained.checkpoint.stat().st_mtime_ns == before


def test_a_given_checkpoint_beats_the_folders_own(
    whole: tuple[TrainingResult, Recorder], build: Build, tmp_path: Path
) -> None:
    experiment = build(dataset__validation="holdout")
    with pytest.raises(InterruptedError):
        train(experiment, Recorder(stop_after=1), tmp_path)
    recorder = Recorder()
    train(experiment, recorder, tmp_path, resume=whole[0].checkpoint.parent / "model_epoch_001.pth")
    assert recorder.started is not None and recorder.started[1] == 3
    assert recorder.reports[:2] == whole[0].history[:2]


def test_checkpoints_of_other_runs_are_refused(
    whole: tuple[TrainingResult, Recorder], build: Build, tmp_path: Path
) -> None:
    checkpoint = whole[0].checkpoint
    other = draw(tmp_path / "other", range(21, 33), 6)
    with pytest.raises(InputError, match=f"{checkpoint} was trained on .* identities, which are not the 12"):
        train(build(dataset__train_dataset_dir=str(other)), Recorder(), tmp_path / "a", resume=checkpoint)
    with pytest.raises(InputError, match=f"{checkpoint} holds another network or optimizer than the spec"):
        experiment = build(dataset__validation="holdout", model__feat_dim=48)
        train(experiment, Recorder(), tmp_path / "b", resume=checkpoint)
    with pytest.raises(InputError, match=f"{checkpoint} holds another network or optimizer than the spec"):
        experiment = build(dataset__validation="holdout", train__optim__bias_lr_factor=2)
        train(experiment, Recorder(), tmp_path / "c", resume=checkpoint)
    strip_checkpoint(checkpoint, tmp_path / "slim.pth")
    with pytest.raises(InputError, match="slim.pth has no optimizer state to continue from"):
        train(build(dataset__validation="holdout"), Recorder(), tmp_path / "e", resume=tmp_path / "slim.pth")
    with pytest.raises(InputError, match="there is no checkpoint .*nowhere.pth"):
        train(build(), Recorder(), tmp_path / "d", resume=tmp_path / "nowhere.pth")


def test_another_seed_trains_another_network(build: Build, tmp_path: Path) -> None:
    losses = [
        train(build(train__num_epochs=1, train__seed=seed), Recorder(), tmp_path / str(number)).history[0]["loss"]
        for number, seed in enumerate((1, 1, 2))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_seed_of_minus_one_is_drawn_and_written_down(build: Build, tmp_path: Path) -> None:
    trained = train(build(train__num_epochs=1, train__seed=-1), Recorder(), tmp_path)
    assert load_checkpoint(trained.checkpoint).spec["train"]["seed"] >= 0


@pytest.mark.parametrize(
    ("interval", "validate_at", "validated"), [(10, (), [3]), (10, (1,), [1, 3]), (2, (), [2, 3]), (1, (), [1, 2, 3])]
)
def test_epochs_with_a_validation(
    build: Build, tmp_path: Path, interval: int, validate_at: tuple[int, ...], validated: list[int]
) -> None:
    experiment = build(dataset__validation="holdout", train__validation_interval=interval)
    trained = train(experiment, Recorder(), tmp_path, validate_at=validate_at)
    assert [epoch["epoch"] for epoch in trained.history if "mAP" in epoch] == validated


def test_no_validation_reports_no_scores(build: Build, tmp_path: Path) -> None:
    trained = train(build(train__num_epochs=1), Recorder(), tmp_path)
    assert "mAP" not in trained.history[0]
    assert len(load_checkpoint(trained.checkpoint).identities) == 12


@pytest.mark.parametrize("validation", ["test", "auto"])
def test_validation_on_the_test_folders(build: Build, data: Path, tmp_path: Path, validation: str) -> None:
    folders = {"dataset__test_dataset_dir": str(data / "gallery"), "dataset__query_dataset_dir": str(data / "query")}
    experiment = build(dataset__validation=validation, train__num_epochs=1, **folders)
    last = train(experiment, Recorder(), tmp_path).history[-1]
    assert (last["queries"], last["gallery"]) == (8, 12)


def with_weights(path: Path, target: Path, value: float) -> Path:
    """Copy a checkpoint, with one value everywhere in its projection."""
    checkpoint = load_checkpoint(path)
    weights = checkpoint.model | {
        "projection.weight": torch.full_like(checkpoint.model["projection.weight"], value),
    }
    save_checkpoint(target, Checkpoint(**(vars(checkpoint) | {"model": weights})))
    return target


def test_a_loss_that_is_not_finite_fails_the_run(
    whole: tuple[TrainingResult, Recorder], build: Build, tmp_path: Path
) -> None:
    second = whole[0].checkpoint.parent / "model_epoch_001.pth"
    broken = with_weights(second, tmp_path / "nan.pth", math.nan)
    with pytest.raises(RunFailedError, match=r"the loss is not finite in epoch 3, step 1: lower train.optim"):
        train(build(dataset__validation="holdout"), Recorder(), tmp_path / "run", resume=broken)
    assert not (tmp_path / "run" / LATEST).exists()


def test_a_diverging_run_fails_as_a_run_and_not_as_bad_input(build: Build, tmp_path: Path) -> None:
    """Weights may overflow in the last update of an epoch, after a finite loss."""
    experiment = build(
        dataset__validation="holdout",
        train__num_epochs=6,
        train__validation_interval=1,
        train__optim__name="SGD",
        train__optim__base_lr=10,
        train__optim__warmup_iters=0,
    )
    with pytest.raises(RunFailedError, match=r"in epoch \d|of epoch \d.*train.clip_grad_norm"):
        train(experiment, Recorder(), tmp_path)


def test_features_that_are_not_finite_fail_the_run(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reid_tune.training import loop

    def overflow(*_: Any) -> Any:
        return lambda images: torch.full((len(images), 4), math.inf).numpy()

    monkeypatch.setattr(loop, "make_embed_function", overflow)
    with pytest.raises(
        RunFailedError, match="validation of epoch 2: row 0 of query_features is not finite .*lower train"
    ):
        train(build(dataset__validation="holdout"), Recorder(), tmp_path)


CENTER = {"model__with_center_loss": True, "model__metric_loss_type": "triplet_center"}


@pytest.mark.parametrize(
    ("optimizer", "precision", "decay"), [("Adam", "bf16", 0.9), ("SGD", "fp16", 0), ("NAdam", "fp32", 0)]
)
def test_deterministic_runs_with_everything_random_resume_bit_for_bit(
    build: Build, tmp_path: Path, optimizer: str, precision: str, decay: float
) -> None:
    experiment = build(
        **CENTER,
        model__backbone=SMALL_VIT,
        model__input_height=32,
        model__parts=[1, 2],
        model__id_loss_type="arcface",
        model__dropout_rate=0.3,
        model__drop_path=0.3,
        model__att_drop_rate=0.1,
        dataset__color_jitter__prob=0.5,
        dataset__validation="holdout",
        train__deterministic=True,
        train__precision=precision,
        train__ema_decay=decay,
        train__optim__freeze_epochs=1,
        train__optim__plateau_patience=0,
        train__optim__warmup_iters=0,
        train__optim__name=optimizer,
        train__seed=-1,
    )
    with pytest.raises(InterruptedError):
        train(experiment, Recorder(stop_after=2), tmp_path / "resumed")
    resumed = load_checkpoint(train(experiment, Recorder(), tmp_path / "resumed").checkpoint)
    drawn = resumed.spec["train"]["seed"]
    whole = load_checkpoint(train(with_seed(experiment, drawn), Recorder(), tmp_path / "whole").checkpoint)
    assert equal(resumed.model, whole.model) and equal(resumed.optimizer, whole.optimizer)
    assert equal(resumed.trained_model, whole.trained_model) and bool(whole.trained_model) == (decay > 0)
    assert equal(resumed.scaler, whole.scaler) and bool(whole.scaler) == (precision == "fp16")
    assert whole.centers is not None and equal(resumed.centers, whole.centers)
    assert untimed(resumed.history) == untimed(whole.history) and drawn >= 0
    assert not torch.are_deterministic_algorithms_enabled(), "the process's choice is restored"


def test_two_deterministic_runs_write_equal_checkpoints(build: Build, tmp_path: Path) -> None:
    """Every tensor of a network with batch norm, of its optimizer and centres, after training on augmented images."""
    experiment = build(
        **CENTER,
        dataset__color_jitter__prob=0.5,
        dataset__validation="holdout",
        train__deterministic=True,
    )
    assert min(experiment.dataset.prob, experiment.dataset.re_prob, experiment.dataset.padding) > 0
    one, other = (load_checkpoint(train(experiment, Recorder(), tmp_path / n).checkpoint) for n in ("one", "other"))
    assert one.model.keys() >= {"projection.weight", "classifier.weight", "backbone.bn1.running_mean"}
    assert one.centers is not None and len(one.optimizer["state"]) > 0
    for part in ("model", "optimizer", "centers", "scaler", "identities", "spec"):
        assert equal(getattr(one, part), getattr(other, part)), part
    assert untimed(one.history) == untimed(other.history)


def test_bits_tell_what_values_do_not() -> None:
    zeros = torch.zeros(2)
    assert equal([zeros, torch.tensor(math.nan)], [zeros.clone(), torch.tensor(math.nan)])
    assert not any(equal(zeros, other) for other in (-zeros, zeros.double(), zeros[:1], zeros + 1e-45))


def test_a_run_on_written_lists_has_the_numbers_of_the_holdout(
    whole: tuple[TrainingResult, Recorder], build: Build, tmp_path: Path
) -> None:
    drawn = build(dataset__validation="holdout")
    write_split(tmp_path / "split", load_split(drawn), list_training_folders(drawn))
    trained = train(build(dataset__validation=str(tmp_path / "split")), Recorder(), tmp_path / "run")
    assert "mAP" in trained.history[-1] and untimed(trained.history) == untimed(whole[0].history)
    assert equal(load_checkpoint(trained.checkpoint).model, load_checkpoint(whole[0].checkpoint).model)


def with_seed(experiment: Experiment, seed: int) -> Experiment:
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"seed": seed})})


def test_the_best_epoch_is_kept_where_it_is_wanted(build: Build, tmp_path: Path) -> None:
    experiment = build(dataset__validation="holdout", train__validation_interval=1, train__num_epochs=4)
    trained = train(experiment, Recorder(), tmp_path / "kept", keep_best=True)
    best = max(trained.history, key=lambda epoch: (epoch["mAP"], -epoch["epoch"]))
    assert load_checkpoint(tmp_path / "kept" / "reid_model_best.pth").epoch == best["epoch"]
    train(experiment, Recorder(), tmp_path / "plain")
    assert not (tmp_path / "plain" / "reid_model_best.pth").exists()


def test_a_plateau_lowers_the_rate(build: Build, tmp_path: Path) -> None:
    """Nothing improves at a tiny learning rate, so every later epoch is a plateau."""
    watching = {"train__optim__plateau_patience": 0, "train__optim__warmup_iters": 0, "train__optim__gamma": 0.5}
    experiment = build(
        **watching,
        train__optim__base_lr=1e-12,
        train__optim__lr_monitor="val_loss",
        train__validation_interval=1,
        dataset__validation="holdout",
    )
    history = train(experiment, Recorder(), tmp_path).history
    assert [epoch["lr"] for epoch in history] == pytest.approx([1e-12, 1e-12, 0.5e-12])
    assert all(epoch["val_loss"] == 1 - epoch["mAP"] for epoch in history)
    with pytest.raises(InputError, match="train.optim.lr_monitor = 'val_loss' needs a validation, and this spec has"):
        train(build(**watching), Recorder(), tmp_path / "blind")


def test_a_run_says_where_its_weights_come_from(build: Build, tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    train(build(train__num_epochs=1), first, tmp_path)
    train(build(train__num_epochs=2), second, tmp_path)
    assert first.messages == ["weights drawn by train.seed"]
    assert second.messages == [f"continues {tmp_path / LATEST}; changed since it was written: train.num_epochs: 1 -> 2"]


def test_an_encrypted_run_resumes_with_its_key_alone(build: Build, tmp_path: Path) -> None:
    train(build(train__num_epochs=1, encryption_key="open-sesame"), Recorder(), tmp_path)
    assert b"open-sesame" not in (tmp_path / LATEST).read_bytes()
    assert (tmp_path / LATEST).read_bytes().startswith(b"age-encryption.org/v1")
    recorder = Recorder()
    train(build(train__num_epochs=2, encryption_key="open-sesame"), recorder, tmp_path)
    assert recorder.started is not None and recorder.started[1] == 2
    with pytest.raises(InputError, match="encrypted"):
        train(build(train__num_epochs=3), Recorder(), tmp_path)
