"""What goes wrong in the reference is triggered here, and comes out right; docs/compatibility.md has a row for each."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.experiment import Experiment, flatten, unflatten
from reid_tune.config.load import build_experiment, build_spec, load_experiment
from reid_tune.demo import draw_demo_data
from reid_tune.errors import InputError
from reid_tune.losses.training_loss import TrainingLoss
from reid_tune.modeling.network import build_seeded_network
from reid_tune.optim.optimizer import make_optimizer
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.export import run_export
from reid_tune.tasks.inference import run_inference
from reid_tune.tasks.train import run_train
from reid_tune.training.launch import launch_workers
from reid_tune.training.step import TrainingStep

Spec = Callable[..., Experiment]
CPU = torch.device("cpu")


def tree(data: Path, results: Path) -> dict[str, Any]:
    """A spec of one short epoch of a tiny network."""
    return {
        "results_dir": str(results),
        "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 24},
        "dataset": {
            "train_dataset_dir": str(data / "bounding_box_train"),
            "test_dataset_dir": str(data / "bounding_box_test"),
            "query_dataset_dir": str(data / "query"),
            "batch_size": 8,
            "padding": 2,
        },
        "re_ranking": {"re_ranking": False},
        "train": {"num_epochs": 1, "optim": {"base_lr": 0.01, "warmup_iters": 0}},
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("demo") / "data"
    draw_demo_data(folder, identities=6, images=4)
    return folder


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run."""
    return run_train(build_experiment(tree(data, tmp_path_factory.mktemp("trained")), {}, "test"))


@pytest.fixture
def spec(data: Path, tmp_path: Path) -> Spec:
    def make(**values: Any) -> Experiment:
        overrides = {key.replace("__", "."): value for key, value in values.items()}
        return build_experiment(tree(data, tmp_path / "results"), overrides, "test")

    return make


def use(path: Path) -> dict[str, str]:
    return {f"{task}__checkpoint": str(path) for task in ("evaluate", "inference", "export")}


def status(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


def test_both_spellings_of_the_documents_are_one_field() -> None:
    by_the_pages = {"train.optim.steps": [3], "train.clip_grad_norm": 0.5}
    by_the_code = {"train.optim.lr_steps": [3], "train.grad_clip": 0.5}
    experiment = build_experiment({}, by_the_pages, "test")
    assert experiment == build_experiment({}, by_the_code, "test") != Experiment()
    assert (experiment.train.optim.lr_steps, experiment.train.clip_grad_norm) == ((3,), 0.5)


def test_label_smoothing_acts_on_the_identity_loss_alone_too() -> None:
    """With the classes' logits 2, 0, 0 cross entropy grows by 0.1 (2 - 2 / 3)."""
    features, logits, labels = torch.zeros(4, 3), torch.tensor([[2.0, 0.0, 0.0]] * 4), torch.zeros(4, dtype=torch.long)
    found = {}
    for smooth in (False, True):
        values = {"dataset.sampler": "softmax", "model.label_smooth": smooth}
        losses = TrainingLoss(build_experiment({}, values, "test"), classes=3, dimension=3)
        found[smooth] = losses(features, logits, labels)
    assert found[True].keys() == {"identity"}
    assert float(found[True]["identity"] - found[False]["identity"]) == pytest.approx(0.1 * (2 - 2 / 3), abs=1e-6)


def test_junk_in_the_gallery_is_nobody(checkpoint: Path, spec: Spec, data: Path, tmp_path: Path) -> None:
    """Copies of a query would be its best matches if they counted for identity 1, as in the reference."""
    person = min(path.name for path in (data / "query").iterdir()).split("_")[0]
    for part, source in (("query", "query"), ("gallery", "bounding_box_test")):
        (tmp_path / part).mkdir()
        for path in (data / source).iterdir():
            shutil.copy(path, tmp_path / part / path.name.replace(f"{person}_", "0001_"))
    folders = {"evaluate__query_dataset": tmp_path / "query", "evaluate__test_dataset": tmp_path / "gallery"}
    experiment = spec(**use(checkpoint), **{key: str(folder) for key, folder in folders.items()})
    before = run_evaluate(experiment).as_dict()
    copies = sorted((tmp_path / "query").glob("0001_*"))
    for number, path in enumerate(copies):
        shutil.copy(path, tmp_path / "gallery" / f"-1_c9s1_{number:06d}_00.jpg")
    assert copies and run_evaluate(experiment).as_dict() == before
    for number, path in enumerate(copies):
        shutil.copy(path, tmp_path / "gallery" / f"0001_c9s1_{number:06d}_00.jpg")
    assert run_evaluate(experiment).as_dict()["plain"]["mAP"] > before["plain"]["mAP"]


def test_a_model_with_center_loss_goes_through_all_tasks(spec: Spec, tmp_path: Path) -> None:
    center = {"model__with_center_loss": True, "model__metric_loss_type": "triplet_center"}
    latest = run_train(spec(**center, train__num_epochs=3, train__checkpoint_interval=9))
    saved = load_checkpoint(latest)
    assert saved.centers is not None and saved.centers.shape == (6, 24)
    assert (latest.parent / "model_epoch_002.pth").is_file(), "the last epoch is kept"
    start = torch.randn(6, 24, generator=torch.Generator().manual_seed(1234))
    assert (saved.centers != start).any(1).all(), "each centre has learned"
    experiment = spec(**center, **use(latest))
    assert 0 < run_evaluate(experiment).as_dict()["plain"]["mAP"] <= 1
    assert run_inference(experiment).dimension == 24
    assert run_export(experiment, None, {})[1].equal


def test_pretrained_weights_are_not_needed_after_the_training(checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    onnx = str(tmp_path / "model.onnx")
    experiment = spec(**use(checkpoint), model__pretrained_model_path="gone.pth", export__onnx_file=onnx)
    assert run_evaluate(experiment).as_dict()["plain"]["queries"] > 0
    assert run_inference(experiment).queries > 0
    assert run_export(experiment, None, {})[1].equal


def test_the_batch_of_a_validation_is_not_multiplied_by_the_gpus(checkpoint: Path, spec: Spec) -> None:
    sizes = []

    def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            sizes.append(len(inputs[0]))

    hook = register_module_forward_pre_hook(see)
    try:
        run_evaluate(spec(**use(checkpoint), dataset__val_batch_size=5, train__gpu_ids=[0, 1, 2]))
    finally:
        hook.remove()
    assert max(sizes) == 5 and len(sizes) > 3


def by_the_reference(path: Path) -> Path:
    """A checkpoint as the reference writes it: the weights and a piece of the whole configuration."""
    config = OmegaConf.create({"train": {"optim": {"lr_steps": [40, 70]}}, "encryption_key": "tlt"})
    content = {"epoch": 4, "state_dict": {"model.base.conv1.weight": torch.zeros(1)}, "pytorch-lightning_version": "2"}
    torch.save(content | {"lr_schedulers": [{"milestones": config.train.optim.lr_steps}]}, path)
    return path


def test_a_checkpoint_of_the_reference_is_never_resumed(spec: Spec, tmp_path: Path) -> None:
    path = by_the_reference(tmp_path / "model_epoch_004_step_00099.pth")
    with pytest.raises(InputError, match=f"^{path} is rejected.*tool as model.pretrained_model_path") as caught:
        run_train(spec(train__resume_training_checkpoint_path=str(path)))
    assert "\n" not in str(caught.value) and not (tmp_path / "results").exists()


# Keys that do nothing in the reference: the default there, and another value.
WITHOUT_EFFECT: dict[str, tuple[Any, Any]] = {
    "model_name": ("re_identification", "mine"),
    "model.cos_layer": (False, True),
    "model.devide_length": (4, 2),
    "model.gem_pooling": (False, True),
    "model.id_loss_weight": (1.0, 0.5),
    "model.jpm": (False, True),
    "model.re_arrange": (True, False),
    "model.shift_num": (5, 8),
    "model.shuffle_group": (2, 4),
    "model.sie_camera": (False, True),
    "model.sie_coe": (3.0, 1.5),
    "model.sie_view": (False, True),
    "model.stem_conv": (False, True),
    "model.triplet_loss_weight": (1.0, 0.5),
    "train.optim.trp_l2": (False, True),
    "evaluate.batch_size": (-1, 64),
    "evaluate.num_nodes": (1, 2),
    "evaluate.trt_engine": ("model.engine", "other.engine"),
    "inference.batch_size": (-1, 64),
    "inference.num_nodes": (1, 2),
    "inference.trt_engine": ("model.engine", "other.engine"),
    "wandb.project": ("TAO Toolkit", "mine"),
}
LONG_ENOUGH = {"train.num_epochs": 20}  # without the warning about the warm-up


@pytest.mark.parametrize("key", WITHOUT_EFFECT)
def test_a_key_that_does_nothing_in_the_reference_is_named_and_does_nothing(key: str) -> None:
    for value in WITHOUT_EFFECT[key]:
        loaded = build_spec({}, {key: value} | LONG_ENOUGH, "test")
        assert loaded.experiment == build_experiment({}, LONG_ENOUGH, "test")
        (note,) = loaded.notes
        assert re.fullmatch(rf"no effect: {re.escape(key)} \(.*\)", note)
    for nothing in ("", None, "???"):
        assert build_spec({}, {key: nothing} | LONG_ENOUGH, "test").notes == ()


# Keys whose value would change the result in the reference, or end it: the supported value, another one, the backbone.
UNSUPPORTED: dict[str, tuple[Any, Any, str]] = {
    "model.jpm": (False, True, "swin_tiny_patch4_window7_224"),
    "train.checkpoint_interval_unit": ("epoch", "step", "resnet_50"),
    "train.num_nodes": (1, 2, "resnet_50"),
}


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_what_would_train_something_else_is_refused_with_the_value_to_write(key: str) -> None:
    supported, other, backbone = UNSUPPORTED[key]
    tree = {"model": {"backbone": backbone}}
    assert build_experiment(tree, {key: supported}, "test") == build_experiment(tree, {}, "test")
    for task in (None, "train"):
        with pytest.raises(InputError, match=rf"^test: {key} = .* is not supported: set it to .*\.$"):
            build_spec(tree, {key: other}, "test", task)
    for task in ("evaluate", "inference", "export"):
        assert build_spec(tree, {key: other}, "test", task)


def test_a_key_that_no_document_has_is_unknown() -> None:
    with pytest.raises(InputError, match=r"^test: unknown key train\.cuda_blocking"):
        build_experiment({}, {"train.cuda_blocking": True}, "test")


def test_overrides_are_plain_and_may_hold_spaces(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("model: {backbone: resnet_50}\n")
    experiment = load_experiment(path, ["results_dir=my results/run 1", "train.optim.lr_steps=[3, 5]"])
    assert (experiment.results_dir, experiment.train.optim.lr_steps) == ("my results/run 1", (3, 5))
    for override in ("+train.seed=3", "~train.seed"):
        with pytest.raises(InputError, match="write key=value, without \\+ or ~|is not an override"):
            load_experiment(path, [override])
    assert path.read_text() == "model: {backbone: resnet_50}\n"


@pytest.mark.integration
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_130_and_loses_no_finished_epoch(data: Path, tmp_path: Path, sent: signal.Signals) -> None:
    values = flatten(tree(data, tmp_path / "results")) | {"train.num_epochs": 100_000, "dataset.validation": "none"}
    path = tmp_path / "spec.yaml"
    path.write_text(text := yaml.safe_dump(unflatten(values)))
    command = [sys.executable, "-m", "reid_tune", "train", "-e", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("epoch 1/"):
                break
        run.send_signal(sent)
        out, err = run.communicate()
    assert (run.returncode, out) == (130, "") and "Traceback" not in err
    assert err.splitlines()[-1] == "reid-tune: stopped; the same command continues from the last finished epoch."
    folder = tmp_path / "results" / "train"
    last = status(folder)[-1]
    assert (last["status"], last["message"]) == ("FAILURE", "train failed: stopped by the user")
    done = load_checkpoint(folder / LATEST)
    assert done.epoch == len(done.history) >= 1 and path.read_text() == text
    latest = run_train(build_experiment(unflatten(values), {"train.num_epochs": done.epoch + 1}, "test"))
    assert load_checkpoint(latest).history[:-1] == done.history


def test_no_task_talks_to_anybody(data: Path, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda _, *arguments: called.append(arguments))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_: called.append(arguments))
    latest = run_train(spec())
    experiment = spec(**use(latest))
    run_evaluate(experiment)
    run_inference(experiment)
    run_export(experiment, None, {})
    assert called == []


def mean_of_a_batch_norm(folder: Path, device: torch.device) -> None:
    """One step on a batch whose halves look unlike; writes the mean that each worker's batch norm has seen."""
    import torch.distributed as dist

    experiment = build_experiment({"dataset": {"batch_size": 16}}, {"model.backbone": "test_resnet"}, "test")
    network = build_seeded_network(experiment.model, 4, seed=0).train()
    step = TrainingStep(network, make_optimizer(network, experiment.train.optim), experiment)
    images = torch.full((8, 3, 32, 16), float(dist.get_rank()))
    seen: list[torch.Tensor] = []
    norm = network.get_submodule("backbone.bn1")
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    step(images, torch.arange(4).repeat_interleave(4))
    own = 0.1 * seen[0].mean((0, 2, 3))
    torch.save((own, norm.state_dict()["running_mean"]), folder / f"{dist.get_rank()}.pt")


@pytest.mark.integration
def test_batch_norm_is_of_each_workers_own_images(tmp_path: Path) -> None:
    launch_workers(mean_of_a_batch_norm, (tmp_path,), [CPU, CPU])
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for own, running in found:
        torch.testing.assert_close(running, own)
    assert not torch.allclose(found[0][0], found[1][0])
