"""Best score after equal numbers of epochs: the searches of reid-tune, Optuna and Ray Tune, several trials at once.

    python benchmarks/search_quality.py [OBJECTIVE] [--seeds 20] [--concurrency 1 4 8 16] [--methods NAME ...]
        [--results FILE] [--train LINES]

Searches use an objective instead of training:

- grid, the default: search_table.json, mAP on held-out identities of drawn pedestrians after every epoch of 126 real
  trainings. Between tabulated learning rates, margins and probabilities of erasing it is interpolated linearly,
  learning rates by their logarithms. A configuration next to one that diverged diverges at the same epoch.
- samples: search_samples.json, the same of random trainings over ten keys, interpolated by a forest.
- conditions: a formula with conditional keys and configurations that diverge.
- crossing: a formula whose learning curves cross: whatever is best at the end learns slowly.

--train trains the rows of grid or samples first. An epoch of any trial costs one, and only full-length trials count.
Trial 0 is the spec, in other tools' searches an enqueued trial where the space contains it. Trials at once differ in
speed by up to 15 %, and a promoted trial continues at no cost. Ray Tune's searcher and scheduler are called as Tune's
controller calls them, without a cluster. Intervals of 95 % are bootstraps over the seeds of the search, differences are
paired by seed.

--results names a file to which every search appends a line; searches that it contains are not repeated.
"""

import heapq
import json
import math
import os
import warnings
from argparse import Namespace
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
from search_objectives import OBJECTIVES, Objective, train_objective
from search_table import EPOCHS

from reid_tune.evaluation.intervals import interval
from reid_tune.tables import print_table

BUDGETS = (60, 120, 240)


def main() -> None:
    options = parse()
    if options.train:
        train_objective(options.objective, options.train)
    print(common.machine(torch.device("cpu")), flush=True)
    print(load_objective(options.objective).describe(), flush=True)
    budgets = (20, 40) if options.quick else BUDGETS
    methods = options.methods or (["auto + asha", "random + asha"] if options.quick else list(METHODS))
    seeds = range(2 if options.quick else options.seeds)
    results = {tuple(job): values for job, values in read_results(options.results)}
    for concurrency in (2,) if options.quick else options.concurrency:
        jobs = [(options.objective, method, concurrency, seed, budgets) for method in methods for seed in seeds]
        with Pool(options.processes) as pool:
            for job, values in pool.imap_unordered(run_job, [job for job in jobs if job[:-1] not in results]):
                results[job] = values
                if options.results:
                    with options.results.open("a") as file:
                        file.write(json.dumps([job, values]) + "\n")
        values = np.array([results[job[:-1]] for job in jobs], dtype=float).reshape(len(methods), len(seeds), -1)
        print_results(dict(zip(methods, values, strict=True)), concurrency, budgets)


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("objective", nargs="?", choices=list(OBJECTIVES), default="grid")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 8, 16], help="trials at once")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), metavar="NAME", help="; ".join(METHODS))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, metavar="FILE", help="file that keeps the result of every search")
    parser.add_argument("--train", type=Path, metavar="LINES", help="train first; LINES keeps finished trainings")
    return parser.parse_args()


@cache
def load_objective(name: str) -> Objective:
    """Return an objective, made once and inherited by the processes."""
    return OBJECTIVES[name]()


def read_results(file: Path | None) -> list[tuple[Any, Any]]:
    """Return the searches and results of a file of results, none without it."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []


def run_job(job: tuple[str, str, int, int, Sequence[int]]) -> tuple[tuple[str, str, int, int], list[float]]:
    """Return a search without its budgets, and its result."""
    *search, _ = job
    return tuple(search), run_search(*job)


def run_search(name: str, method: str, concurrency: int, seed: int, budgets: Sequence[int]) -> list[float]:
    """Return the score of the best full-length trial within each number of epochs, NaN without one."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of experimental options of Optuna
    np.random.seed(seed)  # Ray Tune's scheduler draws brackets from it.
    objective = load_objective(name)
    with common.temporary_workspace() as folder:
        search = METHODS[method](folder, objective.space, seed)
        ended = simulate(search, objective.curve, concurrency, seed, budgets[-1])
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
            trial, values, epoch = search.ask()
            heapq.heappush(running, (now + speeds[started], started, trial, curve(values), epoch))
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
