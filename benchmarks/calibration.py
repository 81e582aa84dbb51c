"""How often equal models are called different, and better models better, by the rule of `confirm`.

The rule claims a gain if the whole 95 % interval of the difference is above 0, so at most 2.5 % of equal models may be
called better. It is compared with a bootstrap of repeats and, in each, of identities, and with the corrected resampled
t-test of Nadeau and Bengio (2003).
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from calibration_models import (
    HELD_OUT,
    NullModel,
    Repeat,
    SimulatedTrainings,
    read_summary_table,
    read_trainings,
)
from null_trainings import NULL_FILE
from scipy.special import stdtrit

from reid_tune.evaluation.differences import mean_difference
from reid_tune.tables import Table, print_table

# Lower bound of the interval of the mean difference, without a claim -infinity.
Rule = Callable[[list[tuple[np.ndarray, np.ndarray]]], float]

_CANDIDATES = 6


def clustered(repeats: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Student's t, clustered by repeat and identity: the rule of `confirm`."""
    low = mean_difference(repeats).low
    return -np.inf if low is None else low


def bootstrap(repeats: list[tuple[np.ndarray, np.ndarray]], draws: int = 300) -> float:
    """Percentile of a bootstrap on two levels: repeats, and in each of them its identities, with replacement."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(repeats), size=(draws, len(repeats)))
    means = np.empty(chosen.shape)
    for number, (values, identities) in enumerate(repeats):
        _, member = np.unique(identities, return_inverse=True)
        sums, sizes = np.bincount(member, weights=values), np.bincount(member)
        drawn = rng.integers(len(sizes), size=(int((chosen == number).sum()), len(sizes)))
        means[chosen == number] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return float(np.percentile(means.mean(axis=1), 2.5))


def resampled(repeats: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Corrected resampled t: the variance between repeats times 1 / n + f / (1 - f), f the held-out share."""
    means = np.array([values.mean() for values, _ in repeats])
    factor = 1 / len(means) + HELD_OUT / (1 - HELD_OUT)
    return float(means.mean() - stdtrit(len(means) - 1, 0.975) * np.sqrt(factor * means.var(ddof=1)))


RULES: dict[str, Rule] = {"bootstrap": bootstrap, "corrected t": resampled, "clustered t": clustered}
# Rule and number of repeats of the columns of equal models.
_EQUAL = [("bootstrap", 2), ("bootstrap", 3), ("bootstrap", 5), ("corrected t", 5)]
_EQUAL += [("clustered t", 2), ("clustered t", 3), ("clustered t", 5)]
# Rule and true gain, as a fraction, of the columns of better models, with five repeats.
_BETTER = [("clustered t", 0.01), ("clustered t", 0.02), ("clustered t", 0.03), ("corrected t", 0.02)]
_SHARE_OF_BOOTSTRAP = 8  # which is slow: it has one in this many of the comparisons


def lower_bounds(model: NullModel, rule: str, repeats: int, comparisons: int) -> np.ndarray:
    """Return the lower bounds of the intervals of many comparisons of equal models.

    Args:
        model: Source of equal models.
        rule: Name of the rule.
        repeats: Number of repeats.
        comparisons: Number of comparisons.
    """
    rng = np.random.default_rng(repeats)
    if rule == "bootstrap":
        comparisons = -(-comparisons // _SHARE_OF_BOOTSTRAP)
    draws = (model.draw(rng, repeats) for _ in range(comparisons))
    return np.array([RULES[rule]([repeat.values() for repeat in draw]) for draw in draws])


def claim_rate(lows: np.ndarray, gain: float = 0.0) -> str:
    """Return the share of lower bounds above 0, in %, for models that are better by a gain."""
    return f"{100 * np.mean(lows + gain > 0):.1f}"


def winner_rates(model: NullModel, comparisons: int) -> tuple[float, float]:
    """Return how often the best of several equal candidates is claimed to be better than the baseline, in %.

    Returns:
        By the bootstrap on the three repeats that chose the best of three; by the clustered t on five repeats after two
        other ones chose the best of six.
    """
    rng = np.random.default_rng(2)
    claims: dict[str, list[bool]] = {"bootstrap": [], "clustered t": []}
    for number in range(comparisons):
        if number % _SHARE_OF_BOOTSTRAP == 0:
            repeats = model.draw(rng, 3, 3)
            claims["bootstrap"].append(bootstrap([repeat.values(_best(repeats)) for repeat in repeats]) > 0)
        repeats = model.draw(rng, 7, _CANDIDATES)
        claims["clustered t"].append(clustered([repeat.values(_best(repeats[:2])) for repeat in repeats[2:]]) > 0)
    return 100 * float(np.mean(claims["bootstrap"])), 100 * float(np.mean(claims["clustered t"]))


def _best(repeats: Sequence[Repeat]) -> int:
    means = [np.average(repeat.differences, axis=1, weights=repeat.queries) for repeat in repeats]
    return int(np.mean(means, axis=0).argmax())


def sources(options: argparse.Namespace) -> dict[str, NullModel]:
    """Return the equal models by name."""
    models: dict[str, NullModel] = {}
    if options.table:
        models[f"{options.table.name}: real trainings"] = read_summary_table(options.table)
    models["null_trainings.json: real trainings"] = read_trainings(NULL_FILE)
    for deviation in (0.3, 0.5, 1.0):
        for identities in (30, 150, 700):
            name = f"seeds {deviation:.1f} points, {identities} identities"
            models[name] = SimulatedTrainings(deviation / 100, identities)
    for persistent in (0, 10):
        name = f"seeds 0.5 points, 150 identities, persistent {persistent} points"
        models[name] = SimulatedTrainings(0.005, 150, persistent / 100)
    models["seeds 0.5 points, 700 identities, 1 in 5 loses 9 points"] = SimulatedTrainings(0.005, 700, collapse=0.09)
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="lines of seed, hold-out, mAP, queries, identities of equal models")
    parser.add_argument(
        "--comparisons", type=int, default=4000, help="of each cell (default 4000; of the bootstrap an eighth)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to check that the script runs")
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    options = parser.parse_args()
    comparisons, models = 20 if options.quick else options.comparisons, sources(options)
    print(f"claims of a gain, %, in {comparisons} comparisons (nominal 2.5 for equal models)")
    equal = Table("equal models; rule, repeats", *(f"{rule}, {repeats}" for rule, repeats in _EQUAL))
    better = Table("better models, 5 repeats; rule, gain", *(f"{rule}, +{100 * gain:.0f}" for rule, gain in _BETTER))
    winners = Table(
        "the best of equal candidates",
        "of 3, on the repeats that chose, bootstrap",
        "of 6, on further repeats, clustered t",
    )
    for name, model in models.items():
        lows = {column: lower_bounds(model, *column, comparisons) for column in _EQUAL}
        equal.add_row(name, *(claim_rate(bounds) for bounds in lows.values()))
        better.add_row(name, *(claim_rate(lows[rule, 5], gain) for rule, gain in _BETTER))
        if isinstance(model, SimulatedTrainings) and not model.collapse:
            winners.add_row(name, *(f"{rate:.1f}" for rate in winner_rates(model, comparisons)))
        print(f"{name}: {', '.join(claim_rate(bounds) for bounds in lows.values())}", file=sys.stderr)
    for table in (equal, better, winners):
        print_table(table)


if __name__ == "__main__":
    main()
