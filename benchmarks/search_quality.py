"""Best mAP after equal numbers of epochs: the searches of reid-tune and of Optuna, with several trials at once.

    python benchmarks/search_quality.py [--seeds 20] [--concurrency 1 4 8 16] [--methods NAME ...] [--make-table LINES]

Searches use a table instead of training: search_table.json, made by --make-table, has mAP on held-out identities of
drawn pedestrians after every epoch of 126 real trainings. Between tabulated learning rates, margins and probabilities
of erasing it is interpolated linearly, learning rates by their logarithms. A configuration next to one that diverged
diverges at the same epoch. An epoch of any trial costs one, and only full-length trials count. Trial 0 is the spec, in
Optuna's searches an enqueued trial where the space contains it. Trials at once differ in speed by up to 15 %. Intervals
of 95 % are bootstraps over the seeds of the search, differences are paired by seed.
"""

import heapq
import itertools
import json
import math
import os
from argparse import Namespace
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from rich.table import Table
from search_methods import METHODS, Search
from search_table import AXES, EPOCHS, FILE, NAME, RATE, RATES, make_table

from reid_tune.evaluation.intervals import interval
from reid_tune.tables import print_table

BUDGETS = (60, 120, 240)
MARGIN, ERASING = AXES
ADAMS = [name for name, rates in RATES.items() if rates == RATES["Adam"]]
SPACE: dict[str, Any] = {
    NAME: {"choice": list(RATES)},
    RATE: [
        {"loguniform": [RATES["Adam"][0], RATES["Adam"][-1]], "when": {NAME: ADAMS}},
        {"loguniform": [RATES["SGD"][0], RATES["SGD"][-1]], "when": {NAME: "SGD"}},
    ],
    MARGIN: {"uniform": [AXES[MARGIN][0], AXES[MARGIN][-1]]},
    ERASING: {"uniform": [AXES[ERASING][0], AXES[ERASING][-1]]},
}


class Grid:
    """Table of trainings as a function of a configuration."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.curves = {tuple(row["parameters"].values()): row["mAP"] for row in rows}
        self.best = max(curve[-1] for curve in self.curves.values() if len(curve) == EPOCHS)

    def curve(self, values: Mapping[str, Any]) -> list[float]:
        """Return the mAP by epoch; shorter than a whole training if it diverges."""
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
    print(f"the best of the table: {100 * load_grid().best:.1f}")
    budgets = (20, 40) if options.quick else BUDGETS
    methods = options.methods or ["auto + asha", "random + asha"] if options.quick else options.methods or list(METHODS)
    seeds = range(2 if options.quick else options.seeds)
    for concurrency in (2,) if options.quick else options.concurrency:
        jobs = [(method, concurrency, seed, budgets) for method in methods for seed in seeds]
        with Pool(options.processes) as pool:
            values = np.array(pool.starmap(run_search, jobs, chunksize=1)).reshape(len(methods), len(seeds), -1)
        print_results(dict(zip(methods, values, strict=True)), concurrency, budgets)


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 8, 16], help="trials at once")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), metavar="NAME", help="; ".join(METHODS))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--make-table", type=Path, metavar="LINES", help="train first; LINES keeps finished trainings")
    return parser.parse_args()


@cache
def load_grid() -> Grid:
    """Return the table, read once in each process."""
    return Grid(json.loads(FILE.read_text()))


def run_search(method: str, concurrency: int, seed: int, budgets: Sequence[int]) -> list[float]:
    """Return the mAP of the best full-length trial within each number of epochs, NaN without one."""
    torch.set_num_threads(1)
    with common.temporary_workspace() as folder:
        search = METHODS[method](folder, SPACE, seed)
        ended = simulate(search, load_grid().curve, concurrency, seed, budgets[-1])
        search.close()
    return [max((score for used, score in ended if used <= budget), default=math.nan) for budget in budgets]


def simulate(
    search: Search, curve: Callable[[Mapping[str, Any]], list[float]], concurrency: int, seed: int, budget: int
) -> list[tuple[int, float]]:
    """Search until the epochs are used up.

    Returns:
        For each full-length trial, the number of epochs used at its end, and its mAP.
    """
    speeds = np.random.default_rng([seed, 99]).uniform(0.85, 1.15, 10 * budget)
    running: list[tuple[float, int, Any, list[float], int]] = []  # time of the next report, number, trial, curve, epoch
    ended, used, started = list[tuple[int, float]](), 0, 0
    now = 0.0
    while used < budget:
        while len(running) < concurrency:
            trial, values = search.ask()
            heapq.heappush(running, (now + speeds[started], started, trial, curve(values), 1))
            started += 1
        now, number, trial, scores, epoch = heapq.heappop(running)
        used += 1
        score = scores[epoch - 1] if epoch <= len(scores) else math.nan
        if epoch == EPOCHS and math.isfinite(score):
            ended.append((used, score))
        if search.report(trial, epoch, score) and epoch < EPOCHS:
            heapq.heappush(running, (now + speeds[number], number, trial, scores, epoch + 1))
    return ended


def print_results(results: Mapping[str, np.ndarray], concurrency: int, budgets: Sequence[int]) -> None:
    """Print the methods' values [seed, budget], and the first method's lead over the others, in percent."""
    (first, leader), *others = results.items()
    rows = {**results, **{f"{first} minus {name}": leader - values for name, values in others}}
    print(f"\n{concurrency} at once: best mAP % of {len(leader)} seeds, 95 % intervals")
    table = Table("after epochs", *(str(budget) for budget in budgets))
    for name, values in rows.items():
        table.add_row(name, *(_cell(column, signed="minus" in name) for column in values.T))
    print_table(table)


def _cell(values: np.ndarray, *, signed: bool) -> str:
    scores = values[np.isfinite(values)]
    if len(scores) < len(values):
        return f"{len(values) - len(scores)} without"
    low, high = interval(scores, np.arange(len(scores)), repeats=10_000)
    form = "+.1f" if signed else ".1f"
    return f"{100 * scores.mean():{form}} ({100 * low:{form}} .. {100 * high:{form}})"


if __name__ == "__main__":
    main()
