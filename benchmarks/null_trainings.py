"""Trainings of one configuration with several seeds and hold-outs: equal models, for `calibration.py`.

Without arguments it trains all that `null_trainings.json` lacks; about 3 s each on one core.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import EpochTimer

from reid_tune.config.experiment import Experiment, unflatten
from reid_tune.demo import draw_demo_data
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.score import score
from reid_tune.files import write_atomic
from reid_tune.training.loop import train

NULL_FILE = Path(__file__).with_suffix(".json")
SEEDS, HOLDOUTS, IDENTITIES = 8, 9, 150
_SPEC: dict[str, Any] = {
    "model.backbone": "test_resnet",
    "model.input_width": 16,
    "model.input_height": 32,
    "model.feat_dim": 64,
    "dataset.batch_size": 32,
    "dataset.padding": 5,
    "dataset.validation": "holdout",
    "train.num_epochs": 8,
    "train.validation_interval": 8,
    "train.checkpoint_interval": 8,
    "train.precision": "fp32",
    "train.optim.name": "Adam",
    "train.optim.base_lr": 0.002,
    "train.optim.lr_steps": [5, 7],
    "train.optim.warmup_iters": 1,
}


def train_null(images: Path, folder: Path, seed: int, holdout: int) -> dict[str, Any]:
    """Train once.

    Args:
        images: Folder of the drawn pedestrians.
        folder: Folder of the checkpoints.
        seed: Training seed.
        holdout: Seed of the hold-out.

    Returns:
        Seed and hold-out, and by held-out identity the number of queries and the sum of their average precisions.
    """
    values = {"train.seed": seed, "dataset.validation_seed": holdout, "dataset.train_dataset_dir": str(images)}
    experiment = Experiment.model_validate(unflatten(_SPEC | values))
    features = folder / f"{seed}-{holdout}.npz"
    train(experiment, EpochTimer(), folder / f"{seed}-{holdout}", features_file=features)
    result = score(read_features(features))
    identities, member = np.unique(result.query_ids, return_inverse=True)
    sums = np.bincount(member, weights=result.average_precision)
    return {
        "seed": seed,
        "holdout": holdout,
        "identities": identities.tolist(),
        "queries": np.bincount(member).tolist(),
        "sums": [round(value, 3) for value in sums.tolist()],
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = json.loads(NULL_FILE.read_text()) if NULL_FILE.exists() else []
    done = {(row["seed"], row["holdout"]) for row in rows}
    with tempfile.TemporaryDirectory() as name:
        os.environ["REID_TUNE_CACHE_DIR"] = str(Path(name, "cache"))
        draw_demo_data(Path(name, "data"), identities=IDENTITIES)
        for seed in range(1, SEEDS + 1):
            for holdout in range(1, HOLDOUTS + 1):
                if (seed, holdout) in done:
                    continue
                rows.append(train_null(Path(name, "data", "bounding_box_train"), Path(name), seed, holdout))
                write_atomic(NULL_FILE, "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
                print(f"seed {seed}, hold-out {holdout}: mAP {sum(rows[-1]['sums']) / sum(rows[-1]['queries']):.3f}")


if __name__ == "__main__":
    main()
