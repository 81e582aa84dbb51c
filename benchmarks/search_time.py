"""CPU time of a suggestion after 1,000 trials with scores at five rungs and at full length.

    python benchmarks/search_time.py [--trials 1000] [--suggestions 40]

The space has ten keys of mixed kinds, two of them under conditions. All trials have all six scores, which is the most
that a sampler may have to learn from.
"""

import math
import time
from argparse import Namespace
from pathlib import Path

import common
import numpy as np
import torch
from common import Row
from search_methods import make_sweep
from search_samples import SAMPLES_SPACE
from search_table import EPOCHS

from reid_tune.journal.state import trial_run
from reid_tune.search.asha import Rungs
from reid_tune.search.study import Study

RUNGS = (1, 2, 3, 5, 7)


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    print(common.machine(torch.device("cpu")), flush=True)
    trials, suggestions = (60, 3) if options.quick else (options.trials, options.suggestions)
    rows = []
    with common.temporary_workspace() as folder:
        for sampler in ("auto", "tpe"):
            times = time_suggestions(folder, sampler, trials, suggestions)
            for name, quantile in (("median", 0.5), ("95th percentile", 0.95)):
                rows.append(Row(f"{sampler}, {name}, ms", "", 1e3 * float(np.quantile(times, quantile)), "", "100"))
    common.show(f"CPU of {suggestions} suggestions after {trials:,} trials x {len(RUNGS)} rungs", "", rows)


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--suggestions", type=int, default=40)
    return parser.parse_args()


def time_suggestions(folder: Path, sampler: str, trials: int, suggestions: int) -> list[float]:
    """Return the CPU seconds of suggestions, whose trials stay running."""
    study = Study(make_sweep(folder, SAMPLES_SPACE, sampler, 1), Rungs(RUNGS))
    random = np.random.default_rng(1)
    for number, configuration in enumerate([{}, *study.random_draws(1, trials - 1)]):
        run = trial_run(number)
        study.add_trial(run, configuration)
        best = random.uniform(0.2, 0.6)
        scores = {epoch: best * (1 - math.exp(-0.5 * epoch)) for epoch in (*RUNGS, EPOCHS)}
        study.tell(run, "finished", scores[EPOCHS], scores)
    times = []
    for number in range(trials, trials + suggestions):
        started = time.process_time()
        study.ask(trial_run(number), number)
        times.append(time.process_time() - started)
    return times


if __name__ == "__main__":
    main()
