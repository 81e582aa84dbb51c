"""Cost of a sweep in addition to its training: the driver over 1,000 simulated trials, and real trials on Ray.

    python benchmarks/sweep_overhead.py [--trials 1000] [--runs 4]

Driver: the search (auto, asha, a space with conditions and a constraint, the log fsynced) receives reports of 27 epochs
that a formula computes instead of a training. CPU time of this process, without the live table and MLflow.

Ray: small trainings one after the other on a local cluster. The cost of a trial is the time from its start to the next
one's start, without the seconds of its training steps: process, imports, data, checkpoints and reports. The cost of a
report is the time from one report's arrival to the next, without the training steps: the epoch's checkpoint and the
transfer. Plain Ray Tune is a Tune function that calls the same training, and tune.report after every epoch.
"""

import math
import resource
import statistics
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import torch
import yaml
from common import Row

from reid_tune.config.experiment import Experiment, unflatten
from reid_tune.config.load import with_parameters
from reid_tune.demo import draw_demo_data
from reid_tune.execution.cluster.session import ray_session
from reid_tune.journal.journal import Journal
from reid_tune.search.asha import Rungs, rung_epochs
from reid_tune.search_space.load import SweepConfig, load_sweep
from reid_tune.sweep.resume import make_header
from reid_tune.sweep.stages.search import TrialSource
from reid_tune.training.data_split import load_split
from reid_tune.training.image_sets import load_training_images

NAME, RATE, MARGIN = "train.optim.name", "train.optim.base_lr", "train.optim.triplet_loss_margin"
SPACE = {
    NAME: {"choice": ["AdamW", "SGD"]},
    RATE: [
        {"loguniform": [1e-5, 1e-2], "when": {NAME: "AdamW"}},
        {"loguniform": [1e-3, 1.0], "when": {NAME: "SGD"}},
    ],
    "model.no_margin": {"choice": [False, True]},
    MARGIN: {"uniform": [0.1, 0.6], "when": {"model.no_margin": False}},
    "train.optim.warmup_iters": {"int": [0, 3]},
    "dataset.batch_size": {"choice": [16, 24, 32, 48, 64]},
    "dataset.num_instances": {"int": [2, 8]},
}
CONSTRAINTS = ["dataset.batch_size % dataset.num_instances == 0"]
EPOCHS, RUNGS = 27, rung_epochs(3 + 3, 3, 27)
TINY = {
    "model.backbone": "test_resnet",
    "model.input_height": 32,
    "model.input_width": 16,
    "dataset.batch_size": 16,
    "train.num_epochs": 5,
    "train.optim.lr_steps": [4],
}
PLAIN = {"dataset.validation": "none"}


def main() -> None:
    options = parse()
    print(common.machine(torch.device("cpu")), flush=True)
    with common.temporary_workspace() as folder:
        rows = driver(folder, 60 if options.quick else options.trials)
        if options.runs:
            rows += trials(folder, 2 if options.quick else options.runs)
    common.show("the cost of a sweep in addition to its training", "plain Ray Tune", rows)


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="number of simulated trials")
    parser.add_argument("--runs", type=int, default=4, help="real trials of each kind, 0 or at least 2")
    return parser.parse_args()


def make_sweep(folder: Path, values: Mapping[str, Any], **settings: Any) -> SweepConfig:
    folder.mkdir()
    (folder / "spec.yaml").write_text(yaml.safe_dump(unflatten({"train.optim.warmup_iters": 1, **values})))
    content = {"name": "overhead", "spec": "spec.yaml", "space": SPACE, "registry": {"model": "none"}}
    (folder / "sweep.yaml").write_text(
        yaml.safe_dump(content | {"storage": str(folder), "budget": {"trials": 1}} | settings)
    )
    return load_sweep(folder / "sweep.yaml")


def driver(folder: Path, count: int) -> list[Row]:
    """Simulate a sweep, and return the rows of the driver."""
    values = {"train.num_epochs": EPOCHS, "dataset.train_dataset_dir": "not-read"}
    sweep = make_sweep(folder / "simulated", values, constraints=CONSTRAINTS, budget={"trials": count})
    before = _peak_mb()
    with Journal(sweep.folder) as journal:
        journal.emit(make_header(sweep))
        suggestions, reports = simulate(TrialSource(sweep, journal, Rungs(RUNGS)))
        size = journal.path.stat().st_size
    last = count // 10
    return [
        Row(f"CPU of a report, mean of {len(reports):,}, ms", "", statistics.mean(reports), "", "10"),
        Row(f"CPU of a report, mean of the last {last}, ms", "", statistics.mean(reports[-last:]), "", "10"),
        Row(f"CPU of a suggestion, median of {count:,}, ms", "", statistics.median(suggestions), "", "100"),
        Row(
            f"CPU of a suggestion, median of the last {last}, ms", "", statistics.median(suggestions[-last:]), "", "100"
        ),
        Row("memory that the search adds, MB", "", _peak_mb() - before),
        Row("size of the log, MB", "", size / 1e6),
    ]


def simulate(source: TrialSource) -> tuple[list[float], list[float]]:
    """Run a search to its end, and return the CPU milliseconds of each suggestion and of each report."""
    suggestions, reports = [], []
    while not source.is_done():
        started = time.process_time()
        attempt = source.next_attempt()
        suggestions.append(1e3 * (time.process_time() - started))
        assert attempt is not None
        for epoch in range(1, EPOCHS + 1):
            metrics = {"epoch": epoch, "loss": 1 / epoch, "mAP": quality(attempt.experiment, epoch)}
            started = time.process_time()
            continues = source.report(attempt.run, metrics)
            reports.append(1e3 * (time.process_time() - started))
            if not continues:
                break
    return suggestions, reports


def quality(experiment: Experiment, epoch: int) -> float:
    """Return a score that rises with the epochs and is best at one learning rate of each optimizer."""
    optim = experiment.train.optim
    best = 1e-3 if optim.name == "AdamW" else 5e-2
    level = 0.6 - 0.2 * abs(math.log10(optim.base_lr / best)) - 0.3 * abs(optim.triplet_loss_margin - 0.3)
    return level * epoch / (epoch + 2)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def trials(folder: Path, runs: int) -> list[Row]:
    """Run real trials on Ray, and return their rows."""
    draw_demo_data(folder / "data", identities=40, images=6)
    data = {"dataset.train_dataset_dir": str(folder / "data" / "bounding_box_train")}
    sweep = make_sweep(folder / "real", TINY | data)
    experiment = with_parameters(sweep.experiment, PLAIN, "benchmark")
    sampler = load_training_images(experiment, load_split(experiment).train).sampler
    images = sampler.steps_per_epoch * experiment.dataset.batch_size
    with ray_session():
        from ray_trials import report_cost, run_plain_trials, run_trials, trial_cost

        plain = run_plain_trials(experiment, runs, images)
        variants = [plain, *(run_trials(sweep, PLAIN, runs, workers, images) for workers in (1, 2))]
    costs, reports = [[cost(variant) for variant in variants] for cost in (trial_cost, report_cost)]
    return [
        Row("a trial with 1 worker, s", costs[0], costs[1], "less", "6"),
        Row("a trial with 2 workers, s", None, costs[2], "less", "15"),
        Row("a report of 1 worker, s", reports[0], reports[1], "less", "0.5"),
        Row("a report of 2 workers, s", None, reports[2], "less", "0.5"),
    ]


if __name__ == "__main__":
    main()
