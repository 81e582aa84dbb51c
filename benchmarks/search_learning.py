"""What a search gains or loses by `search.learn_from`: best score after equal numbers of epochs.

    python benchmarks/search_learning.py [OBJECTIVE] [--seeds 10] [--concurrency 4] [--kinds NAME ...]

The objectives are those of search_quality.py. The earlier sweep has 40 random trials, of which 40 % are full-length and
the others end at the first rung. Its kinds:

- same: data and spec are the same;
- shifted: another data set, on which every score is 0.7 times this one plus 10 points;
- noisy: shifted, with a deviation of 3 points for each trial;
- unrelated: the scores belong to other configurations than it says;
- wrong: the better here, the worse there.
"""

import math
import os
from argparse import Namespace
from multiprocessing import Pool
from typing import Any

import common
import numpy as np
import torch
from rich.table import Table
from search_methods import LEVELS, DriverSearch, make_sweep
from search_objectives import OBJECTIVES
from search_quality import BUDGETS, load_objective, simulate
from search_table import EPOCHS

from reid_tune.evaluation.intervals import interval
from reid_tune.search.learned_trials import LearnedSweep
from reid_tune.search.study import Study
from reid_tune.search_space.load import SweepConfig
from reid_tune.tables import print_table

KINDS = ("nothing", "same", "shifted", "noisy", "unrelated", "wrong")
TRIALS, FULL_LENGTH = 40, 0.4


def main() -> None:
    options = parse()
    seeds = range(2 if options.quick else options.seeds)
    print(common.machine(torch.device("cpu")), flush=True)
    jobs = [(options.objective, kind, options.concurrency, seed) for kind in options.kinds for seed in seeds]
    with Pool(options.processes) as pool:
        scores = np.array(pool.starmap(run_search, jobs, chunksize=1)).reshape(len(options.kinds), len(seeds), -1)
    table = Table("learn from", *(f"{what} at {budget}" for budget in BUDGETS for what in ("score %", "gain")))
    for kind, values in zip(options.kinds, scores, strict=True):
        cells = [text for column, base in zip(values.T, scores[0].T, strict=True) for text in _cells(column, base)]
        table.add_row(kind, *cells)
    print_table(table)


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("objective", nargs="?", choices=list(OBJECTIVES), default="grid")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=4, help="trials at once")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="compared with the first")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    return parser.parse_args()


def run_search(name: str, kind: str, concurrency: int, seed: int) -> list[float]:
    """Return the score of the best full-length trial within each number of epochs, NaN without one."""
    objective = load_objective(name)
    with common.temporary_workspace() as folder:
        sweep = make_sweep(folder, objective.space, "auto", seed)
        learned = [] if kind == "nothing" else [earlier_sweep(sweep, name, kind, seed).as_dict()]
        search = DriverSearch(sweep, has_asha=True, learned=learned)
        ended = simulate(search, objective.curve, concurrency, seed, BUDGETS[-1])
        search.close()
    return [max((score for used, score in ended if used <= budget), default=math.nan) for budget in BUDGETS]


def earlier_sweep(sweep: SweepConfig, name: str, kind: str, seed: int) -> LearnedSweep:
    """Return the earlier sweep of a kind."""
    objective, random = load_objective(name), np.random.default_rng([seed, 7])
    configurations = [draw for draw in Study(sweep).random_draws(seed + 10_000, TRIALS) if sweep.space.allows(draw)]
    rows: list[dict[str, Any]] = []
    for number, configuration in enumerate(configurations):
        curve = objective.curve(sweep.space.base | configuration)
        error = random.normal(0, 0.03) if kind == "noisy" else 0.0
        if kind in ("shifted", "noisy"):
            curve = [0.7 * score + 0.1 + error for score in curve]
        elif kind == "wrong":
            curve = [objective.best - score for score in curve]
        reached = curve if random.random() < FULL_LENGTH else curve[: LEVELS[0]]
        scores = {str(epoch): score for epoch, score in enumerate(reached, 1)}
        is_failed = len(curve) < EPOCHS and kind in ("same", "shifted", "noisy")
        row = {"number": number, "parameters": configuration, "full_length": EPOCHS, "scores": scores}
        rows.append(row | {"is_failed": is_failed, "is_same": kind == "same"})
    if kind == "unrelated":
        order = random.permutation(len(rows))
        rows = [row | {"parameters": configurations[index]} for row, index in zip(rows, order, strict=True)]
    return LearnedSweep("earlier", "uid", rows, 0)


def _cells(values: np.ndarray, base: np.ndarray) -> tuple[str, str]:
    low, high = interval(values - base, np.arange(len(values)), repeats=10_000)
    return f"{100 * values.mean():.1f}", f"{100 * (values - base).mean():+.1f} ({100 * low:+.1f} .. {100 * high:+.1f})"


if __name__ == "__main__":
    main()
