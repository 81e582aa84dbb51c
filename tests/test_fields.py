"""Every field of the schema changes what it says: a row for each, and a field without a row fails.

A row has an experiment, two values of the field and an observable, such as the trace of losses of a short run.
"""

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from reid_tune.checkpoints.checkpoint import Checkpoint, save_checkpoint
from reid_tune.config.experiment import Experiment, leaf_fields
from reid_tune.config.load import build_experiment
from reid_tune.data.fingerprint import image_fingerprints
from reid_tune.data.records import read_image_folder
from reid_tune.demo import draw_demo_data
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.errors import ReidTuneError
from reid_tune.modeling.network import build_seeded_network
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.export import run_export
from reid_tune.tasks.inference import run_inference
from reid_tune.tasks.train import describe_run, run_train
from reid_tune.training import determinism, pipeline
from reid_tune.training.acceleration import make_feature_function
from reid_tune.training.devices import worker_devices
from reid_tune.training.loop import train
from reid_tune.training.pretrained import load_pretrained

from .helpers.onnx_files import write_onnx
from .helpers.small_networks import SMALL_SWIN, SMALL_VIT

VIT = {"model.backbone": SMALL_VIT, "model.input_height": 32, "model.input_width": 32}
SWIN = {
    "model.backbone": SMALL_SWIN,
    "model.input_height": 32,
    "model.input_width": 32,
    "train.optim.warmup_iters": 10,
}
HOLDOUT = {"dataset.validation": "holdout", "dataset.validation_fraction": 0.5}
CENTER = {"model.with_center_loss": True, "model.metric_loss_type": "triplet_center"}
ARCFACE = {"model.id_loss_type": "arcface"}
PAIRS = {"model.metric_loss_type": "circle"}
SGD = {"train.optim.name": "SGD"}
FLAT = {"train.optim.warmup_method": "flat_cosine", "train.optim.warmup_steps": 1}
ERASED = {"dataset.re_prob": 1.0}
PATCH = {"dataset.random_patch.prob": 1.0}
RAND_AUGMENT = {"dataset.rand_augment.prob": 1.0}
AFFINE = {"dataset.affine.prob": 1.0}
JITTER = {"dataset.color_jitter.prob": 1.0}
FOLDERS = {"dataset.train_dataset_dir": ["{a}/bounding_box_train", "{b}/bounding_box_train"]}
PLATEAU = HOLDOUT | {"train.optim.plateau_patience": 0}


class World:
    """Folders, files and an experiment for the rows, made once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, seed in (("a", 0), ("b", 1)):
            draw_demo_data(root / name, identities=8, images=6, seed=seed)
        odd = root / "odd"
        odd.mkdir()
        for path in (root / "a" / "bounding_box_train").iterdir():
            (odd / path.name).write_bytes(path.read_bytes())
        (odd / "nobody.jpg").write_bytes(path.read_bytes())
        self.weights = {seed: self._checkpoint(seed) for seed in (1, 2)}
        self.positions = self._positions()
        self.encoder = write_onnx(root / "encoder.onnx", ("b", 3, "h", "w"), more_outputs=[("exp", ("b", 5))])
        self.threshold = self._threshold()
        self.observations: dict[tuple[Observe, str], Any] = {}
        self.steady: set[Observe] = set()

    def experiment(self, overrides: dict[str, Any], results: Path) -> Experiment:
        a = self.root / "a"
        tree = {
            "results_dir": str(results),
            "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 16},
            "dataset": {
                "train_dataset_dir": str(a / "bounding_box_train"),
                "test_dataset_dir": str(a / "bounding_box_test"),
                "query_dataset_dir": str(a / "query"),
                "batch_size": 16,
                "padding": 2,
                "validation": "none",
            },
            "train": {"num_epochs": 1, "checkpoint_interval": 9, "optim": {"base_lr": 0.01, "warmup_iters": 0}},
        }
        return build_experiment(tree, overrides, "test")

    def _checkpoint(self, seed: int) -> Path:
        experiment = self.experiment({}, self.root)
        network = with_statistics(build_seeded_network(experiment.model, 8, seed))
        path = self.root / f"weights-{seed}.pth"
        spec = experiment.model_dump(mode="json", exclude={"encryption_key"})
        images = torch.from_numpy(image_fingerprints(read_image_folder(self.root / "a" / "bounding_box_train").records))
        save_checkpoint(
            path, Checkpoint(spec, 1, list(range(8)), [{"epoch": 1}], network.state_dict(), {}, images=images)
        )
        return path

    def _positions(self) -> Path:
        """A ViT whose table has eight places: 4 x 2 or 2 x 4."""
        experiment = self.experiment(VIT | {"model.input_height": 64}, self.root)
        state = build_seeded_network(experiment.model, 0, 0).backbone.state_dict()
        assert state["pos_embed"].shape[1] == 1 + 8
        torch.save(state, self.root / "vit.pth")
        return self.root / "vit.pth"

    def _threshold(self) -> Path:
        """A threshold for features of 16 values."""
        rates = {"fmr": {"reached": 0.001}, "fnmr": 0.2}
        values = {"squared_distance": 0.5, "cosine": 0.75, "dimension": 16, "data": {}} | rates
        (self.root / "threshold.json").write_text(json.dumps(values))
        return self.root / "threshold.json"


def with_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as a trained network has them: an untrained one of timm may end a branch in 0."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if "bn" in name and name.endswith("weight") or name.startswith("neck.running_"):
            tensor.uniform_(0.5, 1.5, generator=generator)
    return network


@dataclass
class Silent:
    """A reporter that notes how torch's kernels are chosen during the run."""

    kernels: set[tuple[bool, ...]] = field(default_factory=set)

    def start(self, *_: int) -> None: ...

    def info(self, _: str) -> None: ...

    def report_step(self, *_: object) -> None:
        cudnn = torch.backends.cudnn
        self.kernels.add((torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic))

    def report_epoch(self, _: object) -> None: ...


def trace(experiment: Experiment) -> Any:
    """Losses, rates and scores of every epoch of a run of three steps an epoch."""
    directory = experiment.task_dir("train")
    resume = experiment.train.resume_training_checkpoint_path
    history = train(experiment, Silent(), directory, resume=Path(resume) if resume else None).history
    return [{name: value for name, value in epoch.items() if name != "images_per_second"} for epoch in history]


def three_epochs(experiment: Experiment) -> Any:
    return trace(experiment.model_copy(update={"train": experiment.train.model_copy(update={"num_epochs": 3})}))


def rates(experiment: Experiment) -> Any:
    return [epoch["lr"] for epoch in three_epochs(experiment)]


def kernels(experiment: Experiment) -> Any:
    """Settings of torch in a run that is long enough for cuDNN's benchmark."""
    reporter = Silent()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(determinism, "_BENCHMARK_STEPS", 0)
        train(experiment, reporter, experiment.task_dir("train"))
    return reporter.kernels


def precision(experiment: Experiment) -> Any:
    """Precision of products and convolutions in a run on a GPU; the settings are kept without one."""
    with determinism.configure_kernels(experiment.train, torch.device("cuda", 0)):
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def place_of_images(experiment: Experiment) -> Any:
    """Where a GPU with free memory would find the images; the GPU is a stand-in."""
    images = np.empty((4, 8, 8, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_free_memory", lambda _: 1e9)
        patch.setattr(pipeline, "ResidentImages", lambda *_: "resident")
        patch.setattr(pipeline, "HostImages", lambda *_: "host")
        return pipeline.make_image_source(images, experiment, torch.device("cuda", 0))


def graphed(experiment: Experiment) -> Any:
    """How the features of a network on a GPU are computed; the GPU is a stand-in."""
    network = build_seeded_network(experiment.model, 4, seed=0)
    network.parameters = lambda: iter([SimpleNamespace(device=torch.device("cuda", 0))])
    return type(make_feature_function(network, experiment, steps=1)).__name__


def features(experiment: Experiment) -> Any:
    """Embeddings of fixed images by an untrained network, pretrained where the spec says so."""
    network = build_seeded_network(experiment.model, 4, seed=0)
    with_statistics(network)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if "semantic" in name:
            tensor.normal_(generator=generator)
    load_pretrained(network, experiment, [1, 2, 3, 4])
    model = experiment.model
    images = torch.randn(4, model.input_channels, model.input_height, model.input_width, generator=generator)
    with torch.no_grad():
        return network.eval()(images).tolist()


def compiled(experiment: Experiment) -> Any:
    """How many functions a run has compiled; the compiler itself is left out, as it takes a minute."""
    functions = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function, **_: functions.append(function) or function)
        trace(experiment)
    return len(functions)


def files(experiment: Experiment) -> Any:
    """Names of what a training writes."""
    train(experiment, Silent(), experiment.task_dir("train"))
    return tree(experiment)


def tree(experiment: Experiment) -> list[str]:
    root = Path(experiment.results_dir).parent
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def magic(experiment: Experiment) -> Any:
    """The first bytes of the checkpoint."""
    return train(experiment, Silent(), experiment.task_dir("train")).checkpoint.read_bytes()[:20]


def said(experiment: Experiment) -> Any:
    """What `train` says before it begins."""
    with redirect_stderr(io.StringIO()) as text:
        run_train(experiment, {"dataset.num_classes"})
    return [line for line in text.getvalue().splitlines() if "images/s" not in line]


@cache
def plan(task: str) -> Callable[[Experiment], Any]:
    """The run plan on a machine with eight GPUs."""

    def observe(experiment: Experiment) -> Any:
        section = getattr(experiment, task)
        gpus = (section.gpu_id,) if task == "export" else section.gpus
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "device_count", lambda: 8)
            return describe_run(experiment, task, worker_devices(gpus, task))

    return observe


@cache
def outcome(task: Callable[[Experiment], Any]) -> Callable[[Experiment], Any]:
    """Whether a task is refused."""

    def observe(experiment: Experiment) -> Any:
        try:
            task(experiment)
        except ReidTuneError as error:
            return type(error).__name__
        return "done"

    return observe


def evaluated(experiment: Experiment) -> Any:
    """The metrics that evaluate writes."""
    run_evaluate(experiment)
    return json.loads((experiment.task_dir("evaluate") / "metrics.json").read_text())


def evaluate_files(experiment: Experiment) -> Any:
    run_evaluate(experiment)
    return tree(experiment)


@cache
def picture(key: str) -> Callable[[Experiment], Any]:
    """The pixels of a picture that evaluate draws."""

    def observe(experiment: Experiment) -> Any:
        run_evaluate(experiment)
        with Image.open(experiment.value(key)) as image:
            return image.size, hashlib.sha256(image.tobytes()).hexdigest()

    return observe


def batches(experiment: Experiment) -> Any:
    """Sizes of the batches that a network sees in evaluate."""
    sizes = []
    with pytest.MonkeyPatch.context() as patch:
        before = nn.Conv2d.forward

        def forward(self: nn.Conv2d, images: Tensor) -> Tensor:
            if images.shape[1] == 3:
                sizes.append(len(images))
            return before(self, images)

        patch.setattr(nn.Conv2d, "forward", forward)
        run_evaluate(experiment)
    return max(sizes)


def embedded(experiment: Experiment) -> Any:
    """The first embedding and the images that inference writes."""
    run_inference(experiment)
    (file,) = Path(experiment.results_dir).parent.rglob("embeddings.json")
    rows = json.loads(file.read_text())
    return rows[0]["embedding"], [row["img_path"] for row in rows]


def inference_files(experiment: Experiment) -> Any:
    run_inference(experiment)
    return tree(experiment)


def exported(experiment: Experiment) -> Any:
    """The files that export writes, and an embedding by the model."""
    file, _ = run_export(experiment, None, {})
    crop = np.random.default_rng(0).integers(0, 256, (1, 32, 16, 3), dtype=np.uint8)
    return tree(experiment), OnnxModel(file).embed(crop).tolist()


def metadata(experiment: Experiment) -> Any:
    """What the exported model says about itself, but for its spec."""
    found = OnnxModel(run_export(experiment, None, {})[0]).metadata
    return {name: value for name, value in found.items() if name != "spec_sha256"}


Observe = Callable[[Experiment], Any]


@dataclass
class Row:
    """Values as the YAML has them; strings may name the files of `filled` in braces."""

    one: Any
    other: Any
    observe: Observe = trace
    base: dict[str, Any] = field(default_factory=dict)


TESTED = {"evaluate.checkpoint": "{first}"}
EMBEDDED = {"inference.checkpoint": "{first}"}
EXPORTED = {"export.checkpoint": "{first}", "export.onnx_file": "{results}/x.onnx"}
CMC = "evaluate.output_cmc_curve_plot"
MATCHES = "evaluate.output_sampled_matches_plot"

ROWS: dict[str, Row] = {
    "results_dir": Row("{results}/one", "{results}/other", files),
    "encryption_key": Row(None, "a secret", magic),
    "model.backbone": Row("test_resnet", "resnet18"),
    "model.last_stride": Row(1, 2, base={"model.backbone": "resnet18"}),
    "model.non_local": Row(False, True, base={"model.backbone": "resnet18"}),
    "model.pretrain_choice": Row("imagenet", "self", features, {"model.pretrained_model_path": "{first}"}),
    "model.pretrained_model_path": Row(None, "{first}", features),
    "model.input_channels": Row(3, 1),
    "model.input_width": Row(16, 24),
    "model.input_height": Row(32, 48),
    "model.neck": Row("bnneck", ""),
    "model.stride_size": Row([16, 16], [8, 16], base=VIT),
    "model.feat_dim": Row(16, 24),
    "model.reduce_feat_dim": Row(None, False, base={"model.feat_dim": 256}),
    "model.pooling": Row("avg", "gem"),
    "model.parts": Row([1], [1, 2]),
    "model.no_margin": Row(False, True),
    "model.neck_feat": Row("after", "before", features),
    "model.metric_loss_type": Row("center", "triplet_center", base={"model.with_center_loss": True}),
    "model.id_loss_type": Row("softmax", "arcface"),
    "model.sub_centers": Row(1, 2, base=ARCFACE),
    "model.with_center_loss": Row(
        False, True, base={"model.metric_loss_type": {False: "triplet", True: "triplet_center"}}
    ),
    "model.with_flip_feature": Row(False, True, features),
    "model.label_smooth": Row(True, False),
    "model.label_smoothing": Row(0.1, 0.3),
    "model.pretrain_hw_ratio": Row(
        2.0, 0.5, features, VIT | {"model.pretrained_model_path": "{vit}", "model.pretrain_choice": "self"}
    ),
    "model.dropout_rate": Row(0.0, 0.5),
    "model.drop_path": Row(0.0, 0.5, base=VIT),
    "model.drop_out": Row(0.0, 0.5, base=VIT),
    "model.att_drop_rate": Row(0.0, 0.5, base=VIT),
    "model.semantic_weight": Row(1.0, 0.2, features, SWIN),
    "dataset.train_dataset_dir": Row("{a}/bounding_box_train", "{b}/bounding_box_train"),
    "dataset.test_dataset_dir": Row("{a}/bounding_box_test", "{b}/bounding_box_test", evaluated, TESTED),
    "dataset.query_dataset_dir": Row("{a}/query", "{b}/query", evaluated, TESTED),
    "dataset.strict": Row(False, True, outcome(trace), {"dataset.train_dataset_dir": "{odd}"}),
    "dataset.num_classes": Row(8, 9, said),
    "dataset.batch_size": Row(16, 8),
    "dataset.val_batch_size": Row(4, 5, batches, TESTED),
    "dataset.num_workers": Row(1, 2, said),
    "dataset.resident": Row(False, "auto", place_of_images),
    "dataset.pixel_mean": Row([0.5, 0.5, 0.5], [0.5, 0.5, 0.4]),
    "dataset.pixel_std": Row([0.5, 0.5, 0.5], [0.5, 0.5, 0.4]),
    "dataset.padding": Row(2, 3),
    "dataset.prob": Row(0.0, 1.0),
    "dataset.re_prob": Row(0.0, 1.0),
    "dataset.color_jitter.prob": Row(0.0, 1.0),
    "dataset.color_jitter.brightness": Row(0.1, 0.9, base=JITTER),
    "dataset.color_jitter.contrast": Row(0.1, 0.9, base=JITTER),
    "dataset.color_jitter.saturation": Row(0.1, 0.9, base=JITTER),
    "dataset.color_jitter.hue": Row(0.0, 0.5, base=JITTER),
    "dataset.erasing.min_area": Row(0.02, 0.3, base=ERASED),
    "dataset.erasing.max_area": Row(None, 0.1, base=ERASED),
    "dataset.erasing.min_aspect": Row(None, 0.9, base=ERASED),
    "dataset.erasing.count": Row(1, 3, base=ERASED),
    "dataset.random_patch.prob": Row(0.0, 1.0),
    "dataset.random_patch.min_area": Row(0.01, 0.3, base=PATCH),
    "dataset.random_patch.max_area": Row(0.5, 0.1, base=PATCH),
    "dataset.random_patch.min_aspect": Row(0.1, 0.9, base=PATCH),
    "dataset.rand_augment.prob": Row(0.0, 1.0),
    "dataset.rand_augment.num_ops": Row(1, 3, base=RAND_AUGMENT),
    "dataset.rand_augment.magnitude": Row(3.0, 15.0, base=RAND_AUGMENT),
    "dataset.affine.prob": Row(0.0, 1.0),
    "dataset.affine.degrees": Row(0.0, 30.0, base=AFFINE),
    "dataset.affine.translate": Row(0.0, 0.3, base=AFFINE),
    "dataset.affine.scale": Row(0.0, 0.3, base=AFFINE),
    "dataset.affine.shear": Row(0.0, 30.0, base=AFFINE),
    "dataset.grey_prob": Row(0.0, 1.0),
    "dataset.local_grey_prob": Row(0.0, 1.0),
    "dataset.blur.prob": Row(0.0, 1.0),
    "dataset.blur.sigma": Row(0.5, 3.0, base={"dataset.blur.prob": 1.0}),
    "dataset.sampler": Row("softmax", "triplet"),
    "dataset.num_instances": Row(4, 2),
    "dataset.camera_aware": Row(False, True),
    "dataset.folder_weights": Row([1, 1], [1, 3], base=FOLDERS),
    "dataset.max_images_per_identity": Row(None, 4),
    "dataset.validation": Row("none", "test"),
    "dataset.validation_fraction": Row(0.3, 0.5, base={"dataset.validation": "holdout"}),
    "dataset.validation_seed": Row(0, 1, base=HOLDOUT),
    "dataset.validation_unseen_by": Row([], ["{first}"], outcome(trace), HOLDOUT),
    "dataset.extra_tests": Row(
        [],
        [{"name": "b", "query_dataset_dir": "{b}/query", "test_dataset_dir": "{b}/bounding_box_test"}],
        evaluated,
        TESTED,
    ),
    "re_ranking.re_ranking": Row(False, True, evaluated, TESTED),
    "re_ranking.k1": Row(4, 12, evaluated, TESTED),
    "re_ranking.k2": Row(1, 6, evaluated, TESTED),
    "re_ranking.lambda_value": Row(0.0, 1.0, evaluated, TESTED),
    "re_ranking.max_rank": Row(3, 8, picture(MATCHES), TESTED | {MATCHES: "{results}/matches.png"}),
    "re_ranking.num_query": Row(2, 5, picture(MATCHES), TESTED | {MATCHES: "{results}/matches.png"}),
    "train.num_gpus": Row(1, 2, plan("train")),
    "train.gpu_ids": Row([0], [5], plan("train")),
    "train.seed": Row(1, 2),
    "train.num_epochs": Row(1, 2),
    "train.checkpoint_interval": Row(1, 2, files, {"train.num_epochs": 2}),
    "train.validation_interval": Row(1, 2, base=HOLDOUT | {"train.num_epochs": 2}),
    "train.resume_training_checkpoint_path": Row(None, "{results}/nowhere.pth", outcome(trace)),
    "train.results_dir": Row("{results}/one", "{results}/other", files),
    "train.identity_weight": Row(1.0, 0.25),
    "train.triplet_weight": Row(1.0, 0.25),
    "train.triplet_mining": Row("hard", "weighted"),
    "train.triplet_distance": Row("euclidean", "cosine"),
    "train.clip_grad_norm": Row(0.0, 0.01, base=SGD),
    "train.ema_decay": Row(0.0, 0.9, base=HOLDOUT),
    "train.precision": Row("fp32", "bf16"),
    "train.compile": Row(False, True, compiled),
    "train.cuda_graphs": Row(False, True, graphed),
    "train.tf32": Row(False, True, precision),
    "train.accumulate": Row(1, 2),
    "train.deterministic": Row(False, True, kernels),
    "train.cudnn.benchmark": Row(False, True, kernels),
    "train.cudnn.deterministic": Row(False, True, kernels),
    "train.optim.name": Row("Adam", "RMSprop"),
    "train.optim.lr_monitor": Row("val_loss", "train_loss", rates, PLATEAU),
    "train.optim.plateau_patience": Row(0, 5, rates, PLATEAU),
    "train.optim.lr_steps": Row([1], [2], rates),
    "train.optim.gamma": Row(0.1, 0.5, rates, {"train.optim.lr_steps": [1]}),
    "train.optim.bias_lr_factor": Row(1.0, 2.0),
    "train.optim.weight_decay": Row(0.0, 0.9),
    "train.optim.weight_decay_bias": Row(0.0, 0.9),
    "train.optim.warmup_factor": Row(0.01, 0.5, rates, {"train.optim.warmup_iters": 2}),
    "train.optim.warmup_iters": Row(0, 2, rates),
    "train.optim.warmup_epochs": Row(
        1, 2, rates, {"train.optim.warmup_method": "cosine", "train.optim.warmup_iters": 10}
    ),
    "train.optim.warmup_method": Row("linear", "constant", rates, {"train.optim.warmup_iters": 2}),
    "train.optim.warmup_steps": Row(None, 4, rates),
    "train.optim.flat_fraction": Row(0.2, 0.8, rates, FLAT),
    "train.optim.min_lr_factor": Row(0.002, 0.5, rates, FLAT),
    "train.optim.base_lr": Row(0.01, 0.02),
    "train.optim.momentum": Row(0.9, 0.1, base=SGD),
    "train.optim.nesterov": Row(False, True, base=SGD),
    "train.optim.layer_decay": Row(1.0, 0.5),
    "train.optim.backbone_lr_factor": Row(1.0, 0.1),
    "train.optim.freeze_epochs": Row(0, 1),
    "train.optim.decay_norms": Row(True, False, base={"train.optim.weight_decay": 0.9}),
    "train.optim.center_loss_weight": Row(0.0005, 0.5, base=CENTER),
    "train.optim.center_lr": Row(0.5, 0.1, base=CENTER),
    "train.optim.triplet_loss_margin": Row(0.3, 3.0),
    "train.optim.large_fc_lr": Row(False, True),
    "train.optim.cosine_margin": Row(None, 0.1, base=ARCFACE),
    "train.optim.cosine_scale": Row(None, 16, base=ARCFACE),
    "train.optim.pair_margin": Row(None, 0.1, base=PAIRS),
    "train.optim.pair_scale": Row(None, 16, base=PAIRS),
    "evaluate.num_gpus": Row(1, 2, plan("evaluate")),
    "evaluate.gpu_ids": Row([0], [5], plan("evaluate")),
    "evaluate.checkpoint": Row("{first}", "{second}", evaluated),
    "evaluate.results_dir": Row("{results}/one", "{results}/other", evaluate_files, TESTED),
    "evaluate.test_dataset": Row("{a}/bounding_box_test", "{b}/bounding_box_test", evaluated, TESTED),
    "evaluate.query_dataset": Row("{a}/query", "{b}/query", evaluated, TESTED),
    CMC: Row(None, "{results}/cmc.png", evaluate_files, TESTED),
    "evaluate.output_distances_plot": Row(None, "{results}/distances.png", evaluate_files, TESTED),
    "evaluate.fmr": Row(0.05, 0.5, evaluated, TESTED),
    "evaluate.sampled_matches": Row("random", "hardest", picture(MATCHES), TESTED | {MATCHES: "{results}/matches.png"}),
    "evaluate.details": Row(False, True, evaluated, TESTED),
    MATCHES: Row(None, "{results}/matches.png", evaluate_files, TESTED),
    "inference.num_gpus": Row(1, 2, plan("inference")),
    "inference.gpu_ids": Row([0], [5], plan("inference")),
    "inference.checkpoint": Row("{first}", "{second}", embedded),
    "inference.results_dir": Row("{results}/one", "{results}/other", inference_files, EMBEDDED),
    "inference.test_dataset": Row("{a}/bounding_box_test", "{b}/bounding_box_test", embedded, EMBEDDED),
    "inference.query_dataset": Row("{a}/query", "{b}/query", embedded, EMBEDDED),
    "inference.output_file": Row("{results}/x.npz", "{results}/x.parquet", inference_files, EMBEDDED),
    "export.checkpoint": Row("{first}", "{second}", exported, {"export.onnx_file": "{results}/x.onnx"}),
    "export.results_dir": Row("{results}/one", "{results}/other", exported, EXPORTED),
    "export.onnx_file": Row("{results}/x.onnx", "{results}/y.onnx", exported, {"export.checkpoint": "{first}"}),
    "export.threshold": Row(None, "{threshold}", metadata, EXPORTED),
    "export.l2_normalize": Row(False, True, exported, EXPORTED),
    "export.input": Row("float_nchw", "uint8_nhwc", metadata, EXPORTED),
    "export.precision": Row("fp32", "fp16", exported, EXPORTED),
    "export.gpu_id": Row(0, 5, plan("export")),
    "export.overwrite": Row(
        False, True, outcome(exported), {"export.checkpoint": "{first}", "export.onnx_file": "{first}"}
    ),
}

# The preparation of images for an ONNX file of another tool, in both tasks that embed with one.
for task, observe in (("evaluate", evaluated), ("inference", embedded)):
    base = {f"{task}.checkpoint": "{encoder}", f"{task}.onnx_output": "output"}
    ROWS |= {
        f"{task}.onnx_output": Row("output", "exp", observe, base),
        f"{task}.input.height": Row(32, 7, observe, base),
        f"{task}.input.width": Row(16, 5, observe, base),
        f"{task}.input.mean": Row([0.1], [0.9], observe, base),
        f"{task}.input.std": Row([0.5], [0.1, 0.5, 0.9], observe, base),
        f"{task}.input.max_value": Row(1, 255, observe, base | {f"{task}.input.mean": [0.5]}),
        f"{task}.input.channel_order": Row("rgb", "bgr", observe, base),
        f"{task}.input.interpolation": Row("bilinear", "bicubic", observe, base),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return World(tmp_path_factory.mktemp("world"))


def filled(value: Any, world: World, results: Path) -> Any:
    """A value with its names of files."""
    if isinstance(value, str):
        names = {"{a}": world.root / "a", "{b}": world.root / "b", "{odd}": world.root / "odd", "{results}": results}
        names |= {"{first}": world.weights[1], "{second}": world.weights[2], "{vit}": world.positions}
        names |= {"{threshold}": world.threshold, "{encoder}": world.encoder}
        for name, path in names.items():
            value = value.replace(name, str(path))
        return value
    if isinstance(value, list):
        return [filled(item, world, results) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, world, results) for key, item in value.items()}
    return value


def overrides(key: str, value: Any) -> dict[str, Any]:
    """The field's value and what the row says about other fields."""
    base = ROWS[key].base.items()
    return {name: given[value] if isinstance(given, dict) else given for name, given in base} | {key: value}


def observed(key: str, value: Any, world: World, results: Path, again: bool = False) -> Any:
    """The observation of a field's value; rows with the same observable and experiment share it."""
    results.mkdir(parents=True)
    experiment = world.experiment(filled(overrides(key, value), world, results), results / "results")
    case = ROWS[key].observe, experiment.model_dump_json().replace(str(results), "{results}")
    if again:
        return ROWS[key].observe(experiment)
    if case not in world.observations:
        world.observations[case] = ROWS[key].observe(experiment)
    return world.observations[case]


def test_every_field_has_a_row() -> None:
    assert set(ROWS) == {key for key, _ in leaf_fields()}


@pytest.mark.parametrize("key", ROWS)
def test_a_field_changes_what_it_says(key: str, world: World, tmp_path: Path) -> None:
    row = ROWS[key]
    one = observed(key, row.one, world, tmp_path / "one" / "here")
    other = observed(key, row.other, world, tmp_path / "two" / "here")
    assert one != other
    if row.observe not in world.steady:
        again = observed(key, row.one, world, tmp_path / "three" / "here", again=True)
        assert one == again, "the observable must depend on nothing else"
        world.steady.add(row.observe)
