"""All four tasks from specs whose fields differ from their defaults, with a kill -9 in the middle of the training."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.config.defaults import backbone_defaults
from reid_tune.config.experiment import flatten, leaf_fields, unflatten
from reid_tune.config.load import build_experiment
from reid_tune.demo import draw_demo_data
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.modeling.network import build_seeded_network

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

KEY = "correct horse battery staple"

# No experiment can differ in all: some fields need a ResNet, others a Swin or a ViT, and schedules exclude each other.
SHARED: dict[str, Any] = {
    "results_dir": "results",
    "encryption_key": KEY,
    "model.pretrained_model_path": "weights.pth",
    "model.input_channels": 1,
    "model.feat_dim": 24,
    "model.reduce_feat_dim": True,
    "model.with_flip_feature": True,
    "model.dropout_rate": 0.1,
    "model.metric_loss_type": "triplet_center",
    "model.with_center_loss": True,
    "dataset.train_dataset_dir": ["data/bounding_box_train", "more/bounding_box_train"],
    "dataset.test_dataset_dir": "data/bounding_box_test",
    "dataset.query_dataset_dir": "data/query",
    "dataset.strict": True,
    "dataset.num_classes": 24,
    "dataset.batch_size": 12,
    "dataset.val_batch_size": 7,
    "dataset.num_workers": 2,
    "dataset.resident": False,
    "dataset.pixel_mean": [0.4, 0.4, 0.4],
    "dataset.pixel_std": [0.3, 0.3, 0.3],
    "dataset.padding": 3,
    "dataset.prob": 0.4,
    "dataset.re_prob": 0.4,
    "dataset.color_jitter": {"prob": 0.5, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    "dataset.num_instances": 3,
    "dataset.extra_tests": [
        {"name": "more", "query_dataset_dir": "more/query", "test_dataset_dir": "more/bounding_box_test"}
    ],
    "re_ranking": {"k1": 8, "k2": 3, "lambda_value": 0.5, "max_rank": 5, "num_query": 3},
    "train.gpu_ids": [1],
    "train.seed": 7,
    "train.num_epochs": 6,
    "train.checkpoint_interval": 4,
    "train.validation_interval": 3,
    "train.clip_grad_norm": 5.0,
    "train.precision": "bf16",
    "train.tf32": False,
    "train.deterministic": True,
    "train.cudnn": {"benchmark": False, "deterministic": True},
    "train.results_dir": "training",
    "train.optim.bias_lr_factor": 1.5,
    "train.optim.weight_decay": 0.001,
    "train.optim.weight_decay_bias": 0.002,
    "train.optim.warmup_factor": 0.1,
    "train.optim.base_lr": 0.002,
    "train.optim.center_loss_weight": 0.001,
    "train.optim.center_lr": 0.3,
    "train.optim.large_fc_lr": True,
    "evaluate.num_gpus": 2,
    "evaluate.gpu_ids": [1],
    "evaluate.checkpoint": "training/reid_model_latest.pth",
    "evaluate.results_dir": "evaluation",
    "evaluate.test_dataset": "more/bounding_box_test",
    "evaluate.query_dataset": "more/query",
    "evaluate.output_sampled_matches_plot": "pictures/matches.png",
    "evaluate.sampled_matches": "hardest",
    "evaluate.output_cmc_curve_plot": "pictures/cmc.png",
    "evaluate.output_distances_plot": "pictures/distances.png",
    "evaluate.fmr": 0.05,
    "evaluate.details": True,
    "inference.num_gpus": 2,
    "inference.gpu_ids": [1],
    "inference.checkpoint": "training/reid_model_latest.pth",
    "inference.results_dir": "embedding",
    "inference.test_dataset": "more/bounding_box_test",
    "inference.query_dataset": "more/query",
    "inference.output_file": "embedding/features.npz",
    "export.checkpoint": "training/reid_model_latest.pth",
    "export.results_dir": "exporting",
    "export.onnx_file": "model/model.onnx",
    "export.threshold": "evaluation/metrics.json",
    "export.gpu_id": 1,
    "export.overwrite": True,
    "export.l2_normalize": True,
    "export.input": "uint8_nhwc",
}
SPECS: dict[str, dict[str, Any]] = {
    "resnet": {
        "model.backbone": "resnet18",
        "model.last_stride": 2,
        "model.pretrain_choice": "self",
        "model.input_width": 24,
        "model.input_height": 48,
        "model.pooling": "gem",
        "model.neck_feat": "before",
        "model.label_smooth": False,
        "dataset.validation": "holdout",
        "dataset.validation_fraction": 0.3,
        "dataset.validation_seed": 1,
        "train.num_gpus": 2,
        "train.accumulate": 2,
        "train.triplet_weight": 2.0,
        "train.triplet_distance": "cosine",
        "train.optim.name": "SGD",
        "train.optim.momentum": 0.8,
        "train.optim.nesterov": True,
        "train.optim.backbone_lr_factor": 0.5,
        "train.optim.freeze_epochs": 1,
        "train.optim.lr_monitor": "train_loss",
        "train.optim.gamma": 0.5,
        "train.optim.plateau_patience": 1,
        "train.optim.warmup_method": "constant",
        "train.optim.warmup_iters": 2,
        "train.optim.triplet_loss_margin": 0.5,
    },
    "swin": {
        "model.backbone": "swin_tiny_patch4_window7_224",
        "model.pretrain_choice": "imagenet",
        "model.input_width": 32,
        "model.input_height": 64,
        "model.no_margin": False,
        "model.label_smooth": True,
        "model.label_smoothing": 0.2,
        "model.neck": "",
        "model.drop_path": 0.2,
        "model.drop_out": 0.1,
        "model.att_drop_rate": 0.1,
        "model.semantic_weight": 0.3,
        "train.accumulate": 3,
        "train.identity_weight": 0.5,
        "train.triplet_mining": "weighted",
        "train.ema_decay": 0.9,
        "train.optim.name": "AdamW",
        "train.optim.layer_decay": 0.9,
        "train.optim.decay_norms": False,
        "train.optim.warmup_method": "flat_cosine",
        "train.optim.flat_fraction": 0.6,
        "train.optim.min_lr_factor": 0.01,
        "train.optim.base_lr": 0.00001,  # from 0.002 all images have one embedding, and rounding decides the metrics
        "train.optim.warmup_epochs": 2,
        "train.optim.triplet_loss_margin": 0.4,
    },
    "vit": {
        "model.backbone": "vit_tiny_patch16_224",
        "model.pretrain_choice": "self",
        "model.pretrain_hw_ratio": 1.0,
        "model.input_width": 32,
        "model.input_height": 64,
        "model.stride_size": [12, 12],
        "model.metric_loss_type": "center",
        "model.no_margin": False,
        "dataset.sampler": "softmax",
        "export.precision": "fp16",
        "train.cuda_graphs": True,
        "train.optim.name": "NAdam",
        "train.optim.warmup_steps": 3,
        "train.optim.lr_steps": [2, 4],
        "train.optim.gamma": 0.5,
        "train.optim.warmup_iters": 1,
    },
    "parts": {
        "model.backbone": "resnet18",
        "model.pretrain_choice": "self",
        "model.input_channels": 3,
        "model.input_width": 32,
        "model.input_height": 64,
        "model.parts": [1, 2],
        "model.non_local": True,
        "model.id_loss_type": "arcface",
        "model.sub_centers": 2,
        "model.metric_loss_type": "circle",
        "model.with_center_loss": False,
        "dataset.camera_aware": True,
        "dataset.folder_weights": [1.0, 2.0],
        "dataset.max_images_per_identity": 5,
        "dataset.grey_prob": 0.2,
        "dataset.local_grey_prob": 0.2,
        "dataset.erasing": {"min_area": 0.05, "max_area": 0.2, "min_aspect": 0.5, "count": 2},
        "dataset.random_patch": {"prob": 0.3, "min_area": 0.05, "max_area": 0.3, "min_aspect": 0.2},
        "dataset.rand_augment": {"prob": 0.3, "num_ops": 1, "magnitude": 5.0},
        "dataset.affine": {"prob": 0.3, "degrees": 5.0, "translate": 0.1, "scale": 0.2, "shear": 3.0},
        "dataset.blur": {"prob": 0.3, "sigma": 0.5},
        "train.optim.cosine_margin": 0.3,
        "train.optim.cosine_scale": 32.0,
        "train.optim.pair_margin": 0.2,
        "train.optim.pair_scale": 64.0,
        "train.optim.lr_steps": [4, 5],
        "train.optim.warmup_iters": 1,
    },
}
# Two need files of other trainings, one takes a minute; `re_ranking` off leaves its settings without effect.
ELSEWHERE = {
    "train.resume_training_checkpoint_path",
    "train.compile",
    "re_ranking.re_ranking",
    "dataset.validation_unseen_by",
}


class Desk:
    """A folder in which the commands of one spec run."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        draw_demo_data(folder / "data", identities=12, images=6, seed=0)
        draw_demo_data(folder / "more", identities=12, images=6, seed=1)
        self.values = flatten(unflatten(SHARED | SPECS[name]))
        (folder / "spec.yaml").write_text(yaml.safe_dump(unflatten(self.values)))
        model = build_experiment({}, self.values, "test").model
        if name == "vit":  # Square, as pretrain_hw_ratio says.
            model = model.model_copy(update={"input_width": 64})
        network = build_seeded_network(model, 0, seed=3)
        torch.save({"state_dict": network.backbone.state_dict()}, folder / "weights.pth")

    def start(self, task: str, *overrides: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "reid_tune", task, "-e", "spec.yaml", *overrides],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, task: str, *overrides: str) -> tuple[str, str]:
        process = self.start(task, *overrides)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return out, err

    def status(self, task: str) -> list[dict[str, Any]]:
        path = self.folder / task / "status.json"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def kill_behind_epoch(self, epoch: int) -> None:
        """kill -9 of the training and all its workers once an epoch is saved."""
        process = self.start("train")
        while not any(line.get("epoch") == epoch for line in self.status("training")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_specs_differ_from_their_defaults_in_every_field() -> None:
    differing = set()
    for own in SPECS.values():
        values = flatten(unflatten(SHARED | own))
        table = backbone_defaults(values["model.backbone"])
        table["model.backbone"] = "resnet_50"
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}
        differing |= {key for key, value in values.items() if plain[key] != value}
    fields = {key for key, _ in leaf_fields()}
    # ONNX files of other tools: tests/tasks/test_onnx_of_others.py
    onnx_fields = {key for key in fields if ".input." in key or key.endswith(".onnx_output")}
    assert differing | ELSEWHERE | onnx_fields == fields


@pytest.mark.parametrize("name", SPECS)
def test_train_killed_resumed_evaluate_inference_export(name: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, name)
    desk.run("train", "train.results_dir=whole")
    desk.kill_behind_epoch(2)
    latest = tmp_path / "training" / "reid_model_latest.pth"
    assert 2 <= load_checkpoint(latest, KEY).epoch < 6
    _, err = desk.run("train")
    assert "continues training/reid_model_latest.pth" in err and "epoch 6/6" in err and "epoch 1/6" not in err

    resumed, whole = (load_checkpoint(tmp_path / run / "reid_model_latest.pth", KEY) for run in ("training", "whole"))
    assert resumed.epoch == whole.epoch == 6 and resumed.model.keys() == whole.model.keys()
    for key, tensor in whole.model.items():
        if name == "resnet":  # Two workers add gradients in no fixed order.
            torch.testing.assert_close(resumed.model[key], tensor, atol=1e-2, rtol=1e-2)
        else:
            assert torch.equal(resumed.model[key], tensor), key
    lines = desk.status("training")
    assert [line["epoch"] for line in lines if line["status"] == "RUNNING"][-1] == 6
    assert lines[-1]["status"] == "SUCCESS"
    assert all(isinstance(value, float | int) for line in lines for value in line.get("kpi", {}).values())

    out, _ = desk.run("evaluate", "--format", "json")
    metrics = json.loads(out)
    assert metrics == json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["plain"]["mAP"] != metrics["re_ranked"]["mAP"] and "more" in json.dumps(metrics["extra_tests"])
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"matches.png", "cmc.png", "distances.png"}

    desk.run("inference")
    with np.load(tmp_path / "embedding" / "features.npz") as features:
        images = sum(len(list((tmp_path / "more" / folder).iterdir())) for folder in ("query", "bounding_box_test"))
        assert len(features["query_features"]) + len(features["gallery_features"]) == images
    score = json.loads(
        subprocess.run(
            [sys.executable, "-m", "reid_tune", "score", "embedding/features.npz", "--format", "json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert score["mAP"] == pytest.approx(metrics["plain"]["mAP"], abs=1e-4)

    desk.run("export")
    metadata = OnnxModel(tmp_path / "model" / "model.onnx").metadata
    assert float(metadata["threshold_cosine"]) == metrics["threshold"]["cosine"]
    out, _ = desk.run("evaluate", "evaluate.checkpoint=model/model.onnx", "--format", "json")
    assert json.loads(out)["plain"]["mAP"] == pytest.approx(metrics["plain"]["mAP"], abs=1e-3)
    found = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert found == [tmp_path / "spec.yaml"], "the key is only where the user wrote it"
