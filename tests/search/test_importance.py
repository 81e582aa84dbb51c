"""Importances of functions whose decomposition is known, and by the model of simulated searches."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from reid_tune.config.experiment import Experiment
from reid_tune.search import importance
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.importance import MIN_TRIALS, Importances, estimate_importances, find_importances
from reid_tune.search.kernel import Points
from reid_tune.search.prediction_grid import predict_grid
from reid_tune.search.trial_model import TrialModel

from ..helpers.simulated_driver import EPOCHS, make_sweep
from ..helpers.simulated_search import CONDITIONAL, MARGIN, NAME, RATE, searched

pytestmark = pytest.mark.usefixtures("no_fsync")
ERASING, DECAY = "dataset.re_prob", "train.optim.weight_decay"
WARMUP, SOFT, STEPS = "train.optim.warmup_iters", "model.no_margin", "train.optim.lr_steps"
UNIFORM = {"uniform": [0.0, 1.0]}


class KnownModel:
    """A model whose functions are all the same one."""

    def __init__(self, function: Callable[[Points], np.ndarray]) -> None:
        self.function = function

    def predict(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        return self.function(points), np.zeros(len(points))

    def draw(self, points: Points, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        values = self.function(points)
        return values, np.stack([values, values])


def importances_of(encoding: SpaceEncoding, function: Callable[[Points], np.ndarray]) -> Importances:
    importances = estimate_importances(encoding, cast(TrialModel, KnownModel(function)))
    assert importances is not None
    return importances


def encoding_of(folder: Path, space: dict[str, Any], **values: Any) -> SpaceEncoding:
    return SpaceEncoding(make_sweep(folder, space=space, **values).space)


def test_shares_of_the_ishigami_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variances are those of Ishigami and Homma (1990): a = 7, b = 0.1."""
    monkeypatch.setattr(importance, "_CONFIGURATIONS", 4096)  # The function is rougher than those of a model.
    keys = [MARGIN, ERASING, DECAY]
    encoding = encoding_of(tmp_path, dict.fromkeys(keys, UNIFORM))

    def ishigami(points: Points) -> np.ndarray:
        x, y, z = math.pi * (2 * points.numbers.T - 1)
        return np.asarray(np.sin(x) + 7 * np.sin(y) ** 2 + 0.1 * z**4 * np.sin(x))

    importances = importances_of(encoding, ishigami)
    first = 0.5 * (1 + 0.1 * math.pi**4 / 5) ** 2
    second, both = 7**2 / 8, 0.1**2 * math.pi**8 * (1 / 18 - 1 / 50)
    variance = first + second + both
    rows = {row.key: row for row in importances.keys}
    for key, alone, interaction in zip(keys, (first, second, 0), (both, 0, both), strict=True):
        assert rows[key].alone == pytest.approx(alone / variance, abs=0.03)
        assert rows[key].total == pytest.approx((alone + interaction) / variance, abs=0.03)
    assert importances.spread == pytest.approx(math.sqrt(variance), rel=0.03)
    pairs = {pair.keys: pair for pair in importances.pairs}
    assert pairs[MARGIN, DECAY].interaction == pytest.approx(both / variance, abs=0.03)
    assert pairs[MARGIN, ERASING].interaction < 0.03 and pairs[ERASING, DECAY].interaction < 0.03
    strongest = importances.pairs[0]
    assert strongest.keys == (MARGIN, ERASING) and strongest.together == pytest.approx(
        (first + second) / variance, abs=0.05
    )


FINITE: dict[str, Any] = {
    NAME: {"choice": ["Adam", "AdamW", "SGD"]},
    WARMUP: [{"int": [0, 2], "when": {NAME: "SGD"}}, {"choice": [1, 3], "when": {NAME: "Adam"}}],
    SOFT: {"choice": [True, False]},
    MARGIN: {"quniform": [0.1, 0.5, 0.1], "when": {SOFT: False}},
    STEPS: {"list": [{"int": [1, 2]}, {"int": [3, 5]}]},
}


def exact_shares(encoding: SpaceEncoding, function: Callable[[Points], np.ndarray]) -> dict[tuple[str, ...], float]:
    """Totals by (key,), and interactions by (key, key), over all cells of the unit cube."""
    groups = encoding.coordinates_by_key()
    sizes = [len(cells) for cells in cells_of(encoding)]
    cube = np.array(list(itertools.product(*cells_of(encoding))))
    configurations = [encoding.configuration(position) for position in cube]
    values = function(encoding.points(configurations, [0.0] * len(cube))).reshape(sizes)

    def explained(*keys: str) -> float:
        inside = [column for key in keys for column in groups[key]]
        return float(values.mean(axis=tuple(set(range(len(sizes))) - set(inside))).var())

    shares: dict[tuple[str, ...], float] = {}
    for key, columns in groups.items():
        shares[key,] = float(values.var(axis=tuple(columns)).mean())
    for one, other in itertools.combinations(groups, 2):
        shares[one, other] = explained(one, other) - explained(one) - explained(other)
    return {keys: share / float(values.var()) for keys, share in shares.items()}


def cells_of(encoding: SpaceEncoding) -> list[list[float]]:
    """The middles of the cells of each coordinate, which all have the same probability."""
    counts = []
    for parameter in encoding.space.parameters:
        for branch in parameter.branches:
            for distribution in branch.range.distributions(branch.name).values():
                single = not hasattr(distribution, "choices")
                counts.append(distribution.high - distribution.low + 1 if single else len(distribution.choices))  # type: ignore[attr-defined]
    return [[(index + 0.5) / count for index in range(count)] for count in counts]


def mixed(points: Points) -> np.ndarray:
    """Additive in the lists, with interactions of the choices and the numbers."""
    numbers, choices = points.numbers, points.categories
    return np.asarray(
        numbers @ np.linspace(1.0, 2.0, numbers.shape[1])
        + 2 * (choices[:, 0] == choices[0, 0]) * numbers[:, 0]
        + 1.5 * (choices[:, -1] == choices[0, -1])
    )


def test_conditions_choices_steps_and_lists_have_their_exact_shares(tmp_path: Path) -> None:
    encoding = encoding_of(tmp_path, FINITE)
    encoding.points(list(encoding.space.all_configurations()), [0.0] * len(list(encoding.space.all_configurations())))
    exact, importances = exact_shares(encoding, mixed), importances_of(encoding, mixed)
    assert set(importances.totals) == set(FINITE)
    for row in importances.keys:
        assert row.total == pytest.approx(exact[row.key,], abs=0.04), row
        assert row.alone <= row.total + 1e-9
    for pair in importances.pairs:
        assert pair.interaction == pytest.approx(max(0, exact[pair.keys]), abs=0.04), pair


def test_a_bundle_is_one_key_and_what_it_fixes_none(tmp_path: Path) -> None:
    bundle = [
        {"name": "sgd", NAME: "SGD", RATE: {"loguniform": [1e-3, 1e-1]}},
        {"name": "adam", NAME: "Adam", RATE: 1e-3},
    ]
    encoding = encoding_of(tmp_path, {MARGIN: UNIFORM}, bundle=bundle)
    totals = importances_of(encoding, lambda points: np.asarray(points.categories[:, 0] == 0) + 0.0).totals
    assert (
        NAME not in totals
        and set(totals) > {RATE, MARGIN}
        and max(totals, key=lambda key: totals[key]).startswith("bundle")
    )


def test_without_a_searched_key_there_are_none(tmp_path: Path) -> None:
    encoding = encoding_of(tmp_path, {MARGIN: {"value": 0.3}})
    assert estimate_importances(encoding, cast(TrialModel, KnownModel(lambda points: np.zeros(len(points))))) is None


SPACE: dict[str, Any] = {
    RATE: {"loguniform": [1e-4, 1e-2]},
    NAME: {"choice": ["Adam", "AdamW"]},
    MARGIN: {"uniform": [0.1, 0.6]},
    ERASING: UNIFORM,
    WARMUP: {"int": [0, 2]},
}


def deciding(experiment: Experiment, epoch: int) -> float:
    """A peak over the rate, elsewhere for AdamW; the other keys have no effect."""
    optim = experiment.train.optim
    distance = math.log10(optim.base_lr) + (2.5 if optim.name == "AdamW" else 3.5)
    return (0.6 - 0.15 * distance**2) * (epoch + 2) / (EPOCHS + 2)


def search_importances(folder: Path, trials: int, objective: Callable[[Experiment, int], float]) -> Importances:
    sweep = make_sweep(folder, space=SPACE, search={"sampler": "random", "seed": 2}, budget={"trials": trials})
    _, journal = searched(sweep, folder / "x", objective)
    importances = find_importances(journal.state)
    assert importances is not None and len(journal.state.finished()) < 15
    return importances


def test_the_deciding_keys_and_their_interaction_are_found_with_stopped_trials(tmp_path: Path) -> None:
    importances = search_importances(tmp_path, 24, deciding)
    assert [row.key for row in importances.keys if row.is_clear] == [RATE, NAME]
    assert importances.pairs[0].keys == (RATE, NAME) and importances.pairs[0].low > 0.1
    assert all(row.low <= row.total <= row.high <= 1 for row in importances.keys)
    assert search_importances(tmp_path / "again", 24, deciding) == importances


def noise(experiment: Experiment, epoch: int) -> float:
    seed = int(1e9 * experiment.train.optim.base_lr) + epoch
    return float(np.random.default_rng(seed).normal(0.5, 0.02))


@pytest.mark.parametrize("trials", [10, 30])
def test_no_key_of_noise_is_clear(tmp_path: Path, trials: int) -> None:
    importances = search_importances(tmp_path, trials, noise)
    assert not any(row.is_clear for row in importances.keys)


def test_few_trials_and_an_unreadable_space_have_none(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, space=SPACE, budget={"trials": MIN_TRIALS})
    _, journal = searched(sweep, tmp_path / "x", deciding)
    assert find_importances(journal.state) is not None
    _, short_journal = searched(
        make_sweep(tmp_path, space=SPACE, budget={"trials": MIN_TRIALS - 1}), tmp_path / "y", deciding
    )
    assert find_importances(short_journal.state) is None
    journal.state.header.sweep["space"] = {"gone": {"uniform": [0, 1]}}
    assert find_importances(journal.state) is None


def test_every_pair_of_a_space_with_conditions_can_be_predicted(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, **CONDITIONAL, budget={"trials": 12})
    _, journal = searched(sweep, tmp_path / "x")
    importances = find_importances(journal.state)
    assert importances is not None
    pairs: Sequence[tuple[str, str]] = [pair.keys for pair in importances.pairs]
    assert len(pairs) == 10 and predict_grid(journal.state, pairs, journal.state.finished()[0]) is not None
