"""Workers on gloo for test_distributed.py.

`python training_worker.py FOLDER DATA` writes FOLDER/<world>-<rank>.pt. Everything is imported once, then the workers
of each world size are forked.
"""

import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment
from reid_tune.errors import InputError
from reid_tune.modeling.network import build_seeded_network
from reid_tune.optim.optimizer import make_optimizer
from reid_tune.training.distributed import broadcast_object, gather_objects, rank, world_size
from reid_tune.training.loop import train
from reid_tune.training.step import TrainingStep

WORLDS = (1, 2, 4)
LOSSES: dict[str, dict[str, Any]] = {
    "softmax_triplet": {},
    "softmax": {"dataset.sampler": "softmax"},
    "triplet": {"dataset.sampler": "triplet"},
    "triplet_center": {
        "model.metric_loss_type": "triplet_center",
        "model.with_center_loss": True,
        "train.optim.center_loss_weight": 0.01,
    },
    "weighted_cosine": {
        "train.triplet_mining": "weighted",
        "train.triplet_distance": "cosine",
        "train.triplet_weight": 3.0,
        "train.identity_weight": 0.5,
        "model.label_smoothing": 0.2,
    },
    "parts": {"model.parts": [1, 2]},
    "arcface and circle": {
        "model.id_loss_type": "arcface",
        "model.sub_centers": 2,
        "model.metric_loss_type": "circle",
        "train.optim.cosine_scale": 8.0,
        "train.optim.pair_scale": 8.0,
        "train.identity_weight": 0.5,
        "train.triplet_weight": 3.0,
    },
}
IDENTITIES, INSTANCES = 4, 4
# Losses, identities of the batch and values by the name of the step. Of 12 images a worker has 6 or 3, which are not
# whole identities.
STEPS: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{losses: (losses, IDENTITIES, {}) for losses in LOSSES},
    "batch of 12": ("triplet_center", 3, {}),
    "frozen": ("softmax_triplet", IDENTITIES, {"train.optim.freeze_epochs": 1}),
    "frozen in chunks": ("softmax_triplet", IDENTITIES, {"train.optim.freeze_epochs": 1, "train.accumulate": 2}),
    **{f"{losses} in chunks": (losses, IDENTITIES, {"train.accumulate": 2}) for losses in LOSSES},
}


class SilentReporter:
    """Reporter that ignores everything."""

    def start(self, *_: int) -> None: ...

    def info(self, _: str) -> None: ...

    def report_step(self, *_: object) -> None: ...

    def report_epoch(self, _: object) -> None: ...


def experiment(data: str, **values: Any) -> Experiment:
    tree = {
        "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 32},
        "dataset": {"train_dataset_dir": data, "batch_size": 16, "padding": 2, "validation": "holdout"},
        "train": {"num_epochs": 1, "optim": {"name": "SGD"}},
    }
    return build_experiment(tree, values, "worker")


def batch(identities: int = IDENTITIES) -> tuple[Tensor, Tensor]:
    """Return a global batch in which identities 0 and 2 look alike, and 1 and 3; half a batch never has both."""
    generator = torch.Generator().manual_seed(0)
    looks = torch.tensor([-1.0, 1.0, -1.0, 1.0])[:, None, None, None]
    patterns = 0.3 * torch.randn(IDENTITIES, 3, 32, 16, generator=generator)
    noise = 0.3 * torch.randn(IDENTITIES * INSTANCES, 3, 32, 16, generator=generator)
    images, labels = (looks + patterns).repeat_interleave(INSTANCES, 0) + noise, torch.arange(IDENTITIES)
    size = identities * INSTANCES
    return images[:size], labels.repeat_interleave(INSTANCES)[:size]


def one_step(data: str, losses: str, identities: int, values: dict[str, Any]) -> dict[str, Any]:
    """Return losses, gradients and features of one step, with the backbone's batch norm in eval mode."""
    spec = experiment(data, **LOSSES[losses], **values)
    images, labels = batch(identities)
    network = build_seeded_network(spec.model, identities, seed=5)
    step = TrainingStep(network, make_optimizer(network, spec.train.optim), spec)
    step.start_epoch(0)
    network.backbone.eval()
    share = len(images) // world_size()
    with torch.no_grad():
        features = network.features(images)
    parts = step(images[rank() * share : (rank() + 1) * share], labels)
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    state = network.state_dict() | (dict(step.center.state_dict()) if step.center is not None else {})
    return {"parts": parts, "gradients": gradients, "features": features, "state": state}


def short_run(data: str, folder: Path) -> dict[str, Any]:
    trained = train(
        experiment(data, **{"dataset.batch_size": 12, "train.ema_decay": 0.5}),
        SilentReporter(),
        folder / f"run-{world_size()}-{rank()}",
    )
    return {"history": trained.history, "files": sorted(os.listdir(trained.checkpoint.parent))}


def indivisible(data: str, folder: Path) -> str:
    try:
        train(
            experiment(data, **{"dataset.batch_size": 18, "dataset.num_instances": 3}),
            SilentReporter(),
            folder / "unused",
        )
    except InputError as error:
        return str(error)
    return "no error"


def work(number: int, world: int, folder: Path, data: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{world}", rank=number, world_size=world)
    results: dict[str, Any] = {"steps": {name: one_step(data, *step) for name, step in STEPS.items()}}
    results["broadcast"] = broadcast_object(f"from {number}")
    results["gathered"] = gather_objects({"scores": [number / 3, math.nan], "text": "\u00e9" * number})
    if world == 2:
        results["run"] = short_run(data, folder)
    if world == 4:
        results["indivisible"] = indivisible(data, folder)
    torch.save(results, folder / f"{world}-{number}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    for size in WORLDS:
        mp.start_processes(work, args=(size, Path(sys.argv[1]), sys.argv[2]), nprocs=size, start_method="fork")
