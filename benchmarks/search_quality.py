"""Best mAP after equal numbers of epochs: tpe with asha against random search with and without it.

    python benchmarks/search_quality.py [--seeds 20] [--gp] [--make-table LINES]

The driver's search, one trial at a time, uses a table instead of training: search_table.json, made by --make-table, has
mAP on held-out identities of drawn pedestrians after every epoch of 126 real trainings. Between tabulated learning
rates, margins and probabilities of erasing it is interpolated linearly, learning rates by their logarithms. A
configuration next to one that diverged diverges at the same epoch. An epoch of any trial costs one, and only
full-length trials count. Trial 0 is the spec. Intervals of 95 % are bootstraps over the seeds of the search.
"""

import itertools
import json
import math
from argparse import Namespace
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
import yaml
from rich.table import Table
from search_table import AXES, BACKBONE, BASE, EPOCHS, FILE, NAME, RATE, RATES, make_table

from reid_tune.config.experiment import Experiment, unflatten
from reid_tune.evaluation.intervals import interval
from reid_tune.journal.journal import Journal
from reid_tune.search.asha import rung_epochs
from reid_tune.search_space.load import SweepConfig, load_sweep
from reid_tune.sweep.resume import make_header
from reid_tune.sweep.stages.search import TrialSource
from reid_tune.tables import print_table

# Sampler, and whether ASHA stops trials, by name; the other methods are compared with the first.
METHODS = {"tpe + asha": ("tpe", True), "random + asha": ("random", True), "random": ("random", False)}
GP = {"gp + asha": ("gp", True)}
BUDGETS = (30, 60, 120, 240)
MARGIN, ERASING = AXES
ADAMS = [name for name, rates in RATES.items() if rates == RATES["Adam"]]
SPACE = {
    NAME: {"choice": list(RATES)},
    RATE: [
        {"loguniform": [RATES["Adam"][0], RATES["Adam"][-1]], "when": {NAME: ADAMS}},
        {"loguniform": [RATES["SGD"][0], RATES["SGD"][-1]], "when": {NAME: "SGD"}},
    ],
    MARGIN: {"uniform": [AXES[MARGIN][0], AXES[MARGIN][-1]]},
    ERASING: {"uniform": [AXES[ERASING][0], AXES[ERASING][-1]]},
}
# More trials than any budget of epochs allows.
TRIALS = 400


class Objective:
    """Table of trainings as a function of a spec."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.curves = {tuple(row["parameters"].values()): row["mAP"] for row in rows}
        self.best = max(curve[-1] for curve in self.curves.values() if len(curve) == EPOCHS)

    def curve(self, experiment: Experiment) -> list[float]:
        """Return the mAP by epoch; shorter than a whole training if it diverges."""
        values = experiment.parameters()
        name = values[NAME]
        sides = [_between(RATES[name], values[RATE], logarithmic=True)]
        sides += [_between(tabulated, values[key]) for key, tabulated in AXES.items()]
        corners = [
            (math.prod(weight for _, weight in corner), self.curves[name, *(value for value, _ in corner)])
            for corner in itertools.product(*sides)
        ]
        length = min(len(curve) for _, curve in corners)
        return [sum(weight * curve[epoch] for weight, curve in corners) for epoch in range(length)]


def _between(tabulated: Sequence[float], value: float, *, logarithmic: bool = False) -> list[tuple[float, float]]:
    """Return the tabulated values on both sides of a value with their weights, or a tabulated value alone."""
    above = min(bisect(tabulated, value), len(tabulated) - 1)
    sides = tabulated[above - 1], tabulated[above]
    low, high, at = (math.log(x) if logarithmic else x for x in (*sides, value))
    share = (at - low) / (high - low)
    return [(side, weight) for side, weight in zip(sides, (1 - share, share), strict=True) if weight > 0]


def main() -> None:
    options = parse()
    if options.make_table:
        make_table(options.make_table)
    print(common.machine(torch.device("cpu")), flush=True)
    objective = Objective(json.loads(FILE.read_text()))
    budgets = (20, 40) if options.quick else BUDGETS
    seeds = range(2 if options.quick else options.seeds)
    methods = METHODS | (GP if options.gp else {})
    results = {
        name: np.array([search(*method, seed, objective, budgets) for seed in seeds])
        for name, method in methods.items()
    }
    print_results(results, budgets, objective)


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--gp", action="store_true", help="also with Gaussian processes, which takes long")
    parser.add_argument("--make-table", type=Path, metavar="LINES", help="train first; LINES keeps finished trainings")
    return parser.parse_args()


def search(sampler: str, asha: bool, seed: int, objective: Objective, budgets: Sequence[int]) -> list[float]:
    """Return the mAP of the best full-length trial within each number of epochs."""
    levels = rung_epochs(1 + math.ceil(EPOCHS / 10), 3, EPOCHS) if asha else ()
    with common.temporary_workspace() as folder:
        sweep = make_sweep(folder, sampler, seed)
        with Journal(sweep.folder) as journal:
            journal.emit(make_header(sweep))
            ended = run(TrialSource(sweep, journal, levels), objective, budgets[-1])
    return [max(value for used, value in ended if used <= budget) for budget in budgets]


def run(source: TrialSource, objective: Objective, budget: int) -> list[tuple[int, float]]:
    """Search until the epochs are used up.

    Returns:
        For each full-length trial, the number of epochs used at its end, and its mAP.
    """
    used, ended = 0, []
    while used < budget:
        attempt = source.next_attempt()
        assert attempt is not None
        curve = objective.curve(attempt.experiment)
        for epoch in range(1, EPOCHS + 1):
            used += 1
            value = curve[epoch - 1] if epoch <= len(curve) else math.nan
            if not source.report(attempt.run, {"epoch": epoch, "mAP": value}):
                break
        if len(curve) == epoch == EPOCHS:
            ended.append((used, value))
    return ended


def make_sweep(folder: Path, sampler: str, seed: int) -> SweepConfig:
    """Return the sweep of a method and seed; grace period and factor are the defaults, see `search`."""
    tree = unflatten(BASE | {"model.backbone": BACKBONE, "dataset.train_dataset_dir": "not-read"})
    (folder / "spec.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(tree))))
    content = {
        "name": "search-quality",
        "spec": "spec.yaml",
        "space": SPACE,
        "search": {"sampler": sampler, "seed": seed},
        "budget": {"trials": TRIALS},
        "storage": str(folder),
        "registry": {"model": "none"},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return load_sweep(folder / "sweep.yaml")


def print_results(results: dict[str, np.ndarray], budgets: Sequence[int], objective: Objective) -> None:
    """Print the methods' values [seed, budget], and the first method's lead over the others, in percent."""
    (first, leader), *others = results.items()
    rows = results | {f"{first} minus {name}": leader - values for name, values in others}
    print(f"best mAP % of {len(leader)} seeds, 95 % intervals; the best of the table: {100 * objective.best:.1f}")
    table = Table("after epochs", *(str(budget) for budget in budgets))
    for name, values in rows.items():
        table.add_row(name, *(_cell(column, signed="minus" in name) for column in values.T))
    print_table(table)


def _cell(values: np.ndarray, *, signed: bool) -> str:
    low, high = interval(values, np.arange(len(values)), repeats=10_000)
    form = "+.1f" if signed else ".1f"
    return f"{100 * values.mean():{form}} ({100 * low:{form}} .. {100 * high:{form}})"


if __name__ == "__main__":
    main()
