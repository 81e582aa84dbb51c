"""Gain of a sweep on the demo data: winner against trial 0 on the test folders, for several seeds of the sweep.

    python benchmarks/demo_gain.py [--seeds 3]

For every seed the whole quickstart sweep runs, with that seed for the search and for the training. The difference of
mAP (winner minus trial 0, both refitted on all training identities and scored as ONNX files) has a 95 % interval from a
bootstrap over query identities. About 5 minutes per seed on 2 CPU cores.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from reid_tune.config.load import load_experiment
from reid_tune.evaluation.intervals import paired_interval
from reid_tune.evaluation.score import Score, score
from reid_tune.modeling.network import build_seeded_network
from reid_tune.tasks.common.model_scores import evaluation_features
from reid_tune.training.data_split import read_evaluation_records
from reid_tune.training.devices import default_device
from reid_tune.training.embedding import compute_features, make_embed_function
from reid_tune.training.image_sets import load_evaluation_images

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(1, parser.parse_args().seeds + 1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        command("demo-data", "demo-data", "--identities", "100")
        zero = untrained_map()
        pairs = [run_seed(seed) for seed in seeds]
    print_table(pairs)
    print(f"an untrained network: mAP {100 * zero:.1f} %")


def run_seed(seed: int) -> tuple[Score, Score]:
    name = f"seed-{seed}"
    overrides = (f"sweep.name={name}", f"sweep.search.seed={seed}", f"train.seed={seed}")
    command("sweep", str(ROOT / "search_spaces" / "quickstart.yaml"), *overrides, "--until", "test")
    return test_score(name, "winner"), test_score(name, "trial0")


def untrained_map() -> float:
    experiment = load_experiment(ROOT / "configs" / "demo.yaml")
    records = read_evaluation_records("demo-data/query", "demo-data/bounding_box_test")
    embed = make_embed_function(build_seeded_network(experiment.model, 0, experiment.train.seed), experiment)
    return score(compute_features(load_evaluation_images(experiment, *records), embed)).mAP


def command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "reid_tune", *arguments], check=True, stdout=subprocess.DEVNULL)


def test_score(name: str, finalist: str) -> Score:
    experiment = load_experiment(ROOT / "configs" / "demo.yaml")
    file = Path("runs") / name / "export" / f"{finalist}.onnx"
    if not file.exists():  # trial 0 has won
        file = file.with_name("winner.onnx")
    features, _ = evaluation_features(
        experiment, file, "demo-data/query", "demo-data/bounding_box_test", default_device()
    )
    return score(features)


def print_table(pairs: list[tuple[Score, Score]]) -> None:
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    table = Table(
        "sweep", "trial 0 mAP %", "winner mAP %", "difference", "95 % interval", title=f"demo gain, {machine}"
    )
    for seed, (winner, zero) in enumerate(pairs, start=1):
        table.add_row(f"seed {seed}", *row(winner.average_precision, zero.average_precision, winner.query_ids))
    winners = np.concatenate([winner.average_precision for winner, _ in pairs])
    zeros = np.concatenate([zero.average_precision for _, zero in pairs])
    table.add_row("all", *row(winners, zeros, np.concatenate([winner.query_ids for winner, _ in pairs])))
    Console(width=110).print(table)


def row(winner: np.ndarray, zero: np.ndarray, identities: np.ndarray) -> list[str]:
    low, high = paired_interval(winner, zero, identities)
    difference = winner.mean() - zero.mean()
    return [
        f"{100 * zero.mean():.1f}",
        f"{100 * winner.mean():.1f}",
        f"{100 * difference:+.1f}",
        f"{100 * low:+.1f} .. {100 * high:+.1f}",
    ]


if __name__ == "__main__":
    main()
