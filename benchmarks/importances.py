"""Importances of functions whose importances are known, by reid-tune and by two evaluators of Optuna.

    python benchmarks/importances.py [--seeds 2]

A search draws trials at random over six numbers, and its scores have noise with 4 % of the variance. Either all trials
reach full length, or ASHA stops them at two rungs: reid-tune learns from the stopped ones too, and Optuna's evaluators
from complete trials only. Each method is compared with the shares that it estimates, of each key with its interactions
or of each key alone, and all shares are scaled to the sum 1. PED-ANOVA, which asks what distinguishes the best tenth of
the trials, is compared with the shares with interactions.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import common
import numpy as np
import optuna
import torch
from optuna.distributions import FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from rich.table import Table
from scipy.stats import qmc
from search_methods import make_sweep
from search_table import EPOCHS

from reid_tune.search.asha import Asha, Rungs
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.importance import estimate_importances
from reid_tune.search.trial_model import TrialModel, observe
from reid_tune.tables import print_table

LOW, HIGH = 0.01, 0.99
KEYS = (
    "train.optim.triplet_loss_margin",
    "train.optim.weight_decay",
    "train.optim.momentum",
    "train.optim.gamma",
    "dataset.re_prob",
    "dataset.prob",
)
RUNGS, FACTOR = (1, 3), 3
SPREAD, NOISE = 0.05, 0.01  # standard deviations of the score at full length, and of its noise
TRIALS = ((30, False), (100, True))  # with the number of trials whether ASHA stops some
TRUTH_CONFIGURATIONS = 2**14
LEAST_GAP = 0.05  # of the shares of two keys whose order counts

Function = Callable[[np.ndarray], np.ndarray]  # of positions [n, 6] in the unit cube


def additive(positions: np.ndarray) -> np.ndarray:
    """Return sums with shares of 76, 19, 5, 0, 0 and 0 %."""
    return np.asarray(positions @ np.array([4.0, 2.0, 1.0, 0.0, 0.0, 0.0]))


def peak(positions: np.ndarray) -> np.ndarray:
    """Return a peak inside of the space, which is flat far from it."""
    offsets = positions - np.array([0.3, 0.6, 0.5, 0.4, 0.5, 0.5])
    return np.asarray(np.exp(-(offsets**2) @ np.array([12.0, 6.0, 3.0, 1.0, 0.0, 0.0])))


def products(positions: np.ndarray) -> np.ndarray:
    """Return the g-function of Saltelli and Sobol (1995)."""
    factors = np.array([0.0, 1.0, 4.5, 9.0, 99.0, 99.0])
    return np.asarray(((np.abs(4 * positions - 2) + factors) / (1 + factors)).prod(axis=1))


def interaction(positions: np.ndarray) -> np.ndarray:
    """Return what two keys decide together, and a third one alone."""
    centered = positions - 0.5
    return np.asarray(4 * centered[:, 0] * centered[:, 1] + centered[:, 2])


FUNCTIONS: dict[str, Function] = {"additive": additive, "peak": peak, "products": products, "interaction": interaction}


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(common.machine(torch.device("cpu")), flush=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    seeds, cases = (range(1), ((30, True),)) if options.quick else (range(options.seeds), TRIALS)
    errors: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    with common.temporary_workspace() as folder:
        encoding = SpaceEncoding(make_sweep(folder, dict.fromkeys(KEYS, {"uniform": [LOW, HIGH]}), "random", 1).space)
        for name, function in FUNCTIONS.items():
            truths = true_shares(function)
            for trials, is_stopped in cases:
                label = f"{trials} trials, most of them stopped" if is_stopped else f"{trials} trials at full length"
                for seed in seeds:
                    searched = search(function, trials, is_stopped=is_stopped, seed=seed)
                    for method, (kind, shares) in estimates(encoding, *searched).items():
                        errors.setdefault((name, label, method), []).append(compare(shares, truths[kind]))
    show(errors)


def search(
    function: Function, trials: int, *, is_stopped: bool, seed: int
) -> tuple[np.ndarray, list[dict[int, float]]]:
    """Return the positions of random trials in the unit cube, and their scores by epoch until they ended."""
    random = np.random.default_rng(seed)
    positions = random.random((trials, len(KEYS)))
    values = function(qmc.Sobol(len(KEYS), rng=0).random(1024))
    last = 0.5 + SPREAD * (function(positions) - values.mean()) / values.std()
    asha, scores = Asha(RUNGS, FACTOR), list[dict[int, float]]()
    for number, score in enumerate(last):
        curve: dict[int, float] = {}
        for epoch in range(1, EPOCHS + 1):
            learned = np.expm1(-0.5 * epoch) / np.expm1(-0.5 * EPOCHS)
            curve[epoch] = float(score * learned + NOISE * random.normal())
            if is_stopped and not asha.should_continue(str(number), epoch, curve[epoch]):
                break
        scores.append(curve)
    return positions, scores


def estimates(
    encoding: SpaceEncoding, positions: np.ndarray, scores: Sequence[Mapping[int, float]]
) -> dict[str, tuple[str, np.ndarray]]:
    """Return by method the name of the true shares that it estimates, and its shares."""
    configurations = [dict(zip(KEYS, row.tolist(), strict=True)) for row in LOW + (HIGH - LOW) * positions]
    observed = []
    for configuration, curve in zip(configurations, scores, strict=True):
        trial = observe(encoding, configuration, Rungs(RUNGS))
        trial.scores, trial.is_running = dict(curve), False
        observed.append(trial)
    importances = estimate_importances(encoding, TrialModel(observed))
    assert importances is not None
    by_key = {row.key: row for row in importances.keys}
    study = optuna.create_study(direction="maximize")
    distributions = dict.fromkeys(KEYS, FloatDistribution(LOW, HIGH))
    for configuration, curve in zip(configurations, scores, strict=True):
        if EPOCHS in curve:
            study.add_trial(optuna.create_trial(params=configuration, distributions=distributions, value=curve[EPOCHS]))
    return {
        "reid-tune": ("total", np.array([by_key[key].total for key in KEYS])),
        "Optuna's PED-ANOVA": ("total", optuna_shares(study, PedAnovaImportanceEvaluator())),
        "reid-tune, alone": ("alone", np.array([by_key[key].alone for key in KEYS])),
        "Optuna's fANOVA": ("alone", optuna_shares(study, FanovaImportanceEvaluator(seed=0))),
    }


def optuna_shares(
    study: optuna.Study, evaluator: FanovaImportanceEvaluator | PedAnovaImportanceEvaluator
) -> np.ndarray:
    importances = get_param_importances(study, evaluator=evaluator)
    return np.array([importances[key] for key in KEYS])


def true_shares(function: Function) -> dict[str, np.ndarray]:
    """Return Sobol's total and first-order indices by sums over a fixed sequence, see `estimate_importances`."""
    first, second = np.split(qmc.Sobol(2 * len(KEYS), rng=0).random(TRUTH_CONFIGURATIONS), 2, axis=1)
    values, others = function(first), function(second)
    variance, mean = np.concatenate([values, others]).var(), values.mean()
    totals, alone = [], []
    for column in range(len(KEYS)):
        exchanged = first.copy()
        exchanged[:, column] = second[:, column]
        differences = function(exchanged) - values
        totals.append((differences**2).mean() / 2 / variance)
        alone.append(max(0.0, (differences * (others - mean)).mean() / variance))
    return {"total": np.array(totals), "alone": np.array(alone)}


def compare(shares: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the largest error of a share in points, and the share of pairs of keys in their true order."""
    shares, truth = (values / max(values.sum(), 1e-12) for values in (shares, truth))
    pairs = combinations(zip(shares, truth, strict=True), 2)
    ordered = [
        (one[0] - other[0]) * (one[1] - other[1]) > 0 for one, other in pairs if abs(one[1] - other[1]) > LEAST_GAP
    ]
    return 100 * float(np.abs(shares - truth).max()), float(np.mean(ordered))


def show(errors: Mapping[tuple[str, str, str], Sequence[tuple[float, float]]]) -> None:
    methods = list(dict.fromkeys(method for _, _, method in errors))
    table = Table("largest error in points; pairs of keys in their order, %", *methods)
    for name, label in dict.fromkeys((name, label) for name, label, _ in errors):
        means = [np.mean(errors[name, label, method], axis=0) for method in methods]
        table.add_row(f"{name}, {label}", *(f"{error:.0f}; {100 * ordered:.0f}" for error, ordered in means))
    print_table(table)


if __name__ == "__main__":
    main()
