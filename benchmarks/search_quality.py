"""Best mAP after equal numbers of epochs: tpe with asha against random search with and without it.

    python benchmarks/search_quality.py [--seeds 20] [--gp] [--make-table LINES]

The driver's own search, one trial at a time, asks a table instead of training: search_table.json, made by --make-table,
has mAP on hold-out identities of drawn pedestrians after every epoch of 126 real trainings. Between tabulated rates,
margins and shares of erasing it is interpolated linearly, rates by their logarithms; a configuration next to one that
diverged diverges as early. An epoch of any trial costs one, and only trials of full length count. Trial 0 is the spec.
Intervals of 95 % are bootstraps over the seeds of the search.
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

# Name, sampler and scheduler; the others are compared with the first.
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
# More than any budget of epochs allows.
TRIALS = 400


class Objective:
    """The table as a function of a spec."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.curves = {tuple(row["parameters"].values()): row["mAP"] for row in rows}
        self.best = max(curve[-1] for curve in self.curves.values() if len(curve) == EPOCHS)

    def curve(self, experiment: Experiment) -> list[float]:
        """mAP by epoch; shorter than a whole training where it diverges."""
        values = experiment.parameters()
        name = values[NAME]
        sides = [_between(RATES[name], values[RATE], logarithmic=True)]
        sides += [_between(known, values[key]) for key, known in AXES.items()]
        corners = [
            (math.prod(weight for _, weight in corner), self.curves[name, *(value for value, _ in corner)])
            for corner in itertools.product(*sides)
        ]
        length = min(len(curve) for _, curve in corners)
        return [sum(weight * curve[epoch] for weight, curve in corners) for epoch in range(length)]


def _between(known: Sequence[float], value: float, *, logarithmic: bool = False) -> list[tuple[float, float]]:
    """The tabulated values at both sides of a value with their weights; one where it is tabulated itself."""
    above = min(bisect(known, value), len(known) - 1)
    sides = known[above - 1], known[above]
    low, high, at = (math.log(x) if logarithmic else x for x in (*sides, value))
    share = (at - low) / (high - low)
    return [(side, weight) for side, weight in zip(sides, (1 - share, share), strict=True) if weight > 0]


def main() -> None:
    given = parse()
    if given.make_table:
        make_table(given.make_table)
    print(common.machine(torch.device("cpu")), flush=True)
    objective = Objective(json.loads(FILE.read_text()))
    budgets = (20, 40) if given.quick else BUDGETS
    seeds = range(2 if given.quick else given.seeds)
    methods = METHODS | (GP if given.gp else {})
    found = {name: np.array([best(*how, seed, objective, budgets) for seed in seeds]) for name, how in methods.items()}
    print_found(found, budgets, objective)


def parse() -> Namespace:
    parser = common.options(__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--gp", action="store_true", help="Gaussian processes too, which take long")
    parser.add_argument("--make-table", type=Path, metavar="LINES", help="train first; LINES keeps what is done")
    return parser.parse_args()


def best(sampler: str, asha: bool, seed: int, objective: Objective, budgets: Sequence[int]) -> list[float]:
    """The best full-length trial's mAP within each number of epochs."""
    levels = rung_epochs(1 + math.ceil(EPOCHS / 10), 3, EPOCHS) if asha else ()
    with common.workplace() as folder:
        sweep = make_sweep(folder, sampler, seed)
        with Journal(sweep.folder) as journal:
            journal.emit(make_header(sweep))
            ended = run(TrialSource(sweep, journal, levels), objective, budgets[-1])
    return [max(value for used, value in ended if used <= budget) for budget in budgets]


def run(source: TrialSource, objective: Objective, budget: int) -> list[tuple[int, float]]:
    """Search until the epochs are used up: those used at the end of each full-length trial, and its mAP."""
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
    """The sweep of one method and seed; grace period and factor are the defaults, see `best`."""
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


def print_found(found: dict[str, np.ndarray], budgets: Sequence[int], objective: Objective) -> None:
    """Print the methods' values [seed, budget] and the first one's lead; in percent."""
    (first, leader), *others = found.items()
    rows = found | {f"{first} minus {name}": leader - values for name, values in others}
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
