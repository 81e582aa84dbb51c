"""A driver without Ray: it starts runs one after the other and feeds their epochs in by hand."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from reid_tune.config.experiment import Experiment
from reid_tune.evaluation.features import FeatureSet, make_feature_set, write_features
from reid_tune.execution.run_source import RunSource
from reid_tune.journal.journal import Journal
from reid_tune.search.joint_sampler import JointSampler
from reid_tune.search.tpe_sampler import TpeSampler
from reid_tune.search_space.load import SweepConfig, load_sweep

EPOCHS = 6
SPACE = {
    "train.optim.name": {"choice": ["Adam", "AdamW"]},
    "train.optim.base_lr": {"loguniform": [1e-4, 1e-2]},
    "train.optim.warmup_iters": {"int": [0, 2]},
    "train.optim.triplet_loss_margin": {"uniform": [0.1, 0.6]},
}
SPEC = {"train": {"num_epochs": EPOCHS, "optim": {"warmup_iters": 1}}, "dataset": {"train_dataset_dir": "nowhere"}}


def write_yaml(path: Path, tree: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def write_sweep(folder: Path, base: Mapping[str, Any] = SPEC, **values: Any) -> Path:
    """A search-space file and its spec; `values` replace sections."""
    write_yaml(folder / "spec.yaml", dict(base))
    tree = {
        "name": "simulated",
        "spec": "spec.yaml",
        "space": SPACE,
        "search": {"sampler": "random", "seed": 1},
        "budget": {"trials": 9},
        "storage": str(folder / "runs"),
        "registry": {"model": "model"},
    }
    return write_yaml(folder / "sweep.yaml", tree | values)


def make_sweep(folder: Path, base: Mapping[str, Any] = SPEC, **values: Any) -> SweepConfig:
    return load_sweep(write_sweep(folder, base, **values))


def surrogate(experiment: Experiment, epoch: int) -> float:
    """Learns with the epochs, best at a rate of 2e-3, a margin of 0.3 and AdamW."""
    optim = experiment.train.optim
    quality = 0.5 - 0.2 * abs(math.log10(optim.base_lr / 2e-3)) - 0.5 * abs(optim.triplet_loss_margin - 0.3)
    return (quality + 0.05 * (optim.name == "AdamW") + 0.01 * optim.warmup_iters) * epoch / (epoch + 2)


Objective = Callable[[Experiment, int], float]


def epoch_metrics(experiment: Experiment, epoch: int, objective: Objective = surrogate) -> dict[str, Any]:
    return {"epoch": epoch, "loss": 1 / epoch, "mAP": objective(experiment, epoch)}


def draw_features(experiment: Experiment, objective: Objective = surrogate) -> FeatureSet:
    """Embeddings of a validation split, which its seed decides; the better the objective, the less noise."""
    draw = np.random.default_rng(experiment.dataset.validation_seed)
    ids = draw.permutation(40)[:12].repeat(4)
    cameras = np.tile([1, 2, 3, 4], 12)
    noise = 1.5 * (1 - objective(experiment, experiment.train.num_epochs))
    own = np.random.default_rng(experiment.train.seed).normal(size=(48, 8))
    features = np.random.default_rng(5).normal(size=(40, 8))[ids] + noise * own
    query = cameras == 1
    return make_feature_set(features[query], ids[query], cameras[query], features[~query], ids[~query], cameras[~query])


def drive(source: RunSource, objective: Objective = surrogate) -> list[str]:
    """Run until the source is done, each run from its first epoch, as one whose checkpoint knows all of the log."""
    started = []
    while not source.is_done():
        attempt = source.next_attempt()
        if attempt is None:  # The space is used up.
            assert source.is_done()
            break
        started.append(attempt.run)
        source.report_started(attempt.run)
        last = attempt.experiment.train.num_epochs
        for epoch in range(1, last + 1):
            if epoch == last and attempt.features:
                write_features(attempt.features, draw_features(attempt.experiment, objective))
            if not source.report(attempt.run, epoch_metrics(attempt.experiment, epoch, objective)):
                break
            source.poll()
            if not source.is_running(attempt.run):
                break
    return started


def outcome(journal: Journal) -> list[tuple[Any, ...]]:
    """What a sweep found, without times and attempts."""
    runs = journal.state.runs.values()
    return [(run.name, run.state, run.reason, run.parameters, run.epochs) for run in runs]


def study_of(source: Any) -> list[tuple[Any, ...]]:
    """What the sampler knows of each trial; of Optuna's: state, parameters, values and values by epoch, no drafts."""
    sampler = source.study.sampler
    if isinstance(sampler, JointSampler):
        return [tuple(v for name, v in vars(trial).items() if name != "point") for trial in sampler.trials.values()]
    if not isinstance(sampler, TpeSampler):
        return []
    trials = sampler.study.get_trials(deepcopy=False)
    ours = [trial for trial in trials if trial.state.name != "FAIL" or trial.number in sampler.numbers.values()]
    return [(trial.state.name, trial.params, _single(trial.values), trial.intermediate_values) for trial in ours]


def _single(values: list[float] | None) -> Any:
    return values[0] if values and len(values) == 1 else values
