import copy
import itertools
import math
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.state import SweepState, replay
from reid_tune.report.contour import contour_chart
from reid_tune.report.summary import winner_run
from reid_tune.search.prediction_grid import PredictionGrid, predict_grid
from reid_tune.search.recorded_trials import RecordedTrials, ended_trials

from ..helpers.finished_sweep import simulate
from ..helpers.simulated_search import CONDITIONAL, MARGIN, NAME, RATE

STEPS = "train.optim.lr_steps"
SECTIONS = {"space": CONDITIONAL["space"], "constraints": [f"{MARGIN} < 0.45"], "budget": {"trials": 16}}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> SweepState:
    folder = simulate(tmp_path_factory.mktemp("grid"), until="search", sections=SECTIONS).folder
    return replay(read_events(folder / EVENTS))


def grid_of(state: SweepState, *keys: str) -> PredictionGrid:
    best = winner_run(state)
    assert best is not None
    grid = predict_grid(state, list(itertools.combinations(keys, 2)), best)
    assert grid is not None
    return grid


def test_predictions_are_those_of_the_model(state: SweepState) -> None:
    """Point by point: the other keys are those of the best trial."""
    grid, recorded, best = grid_of(state, STEPS, RATE, NAME), RecordedTrials(state), winner_run(state)
    model = recorded.model(ended_trials(state))
    assert best is not None and model is not None
    assert (grid.x.key, grid.y.key) == (RATE, NAME)  # Lists are left out.
    assert (grid.x.values[0], grid.x.values[-1], len(grid.x.values)) == (1e-4, 1e-1, 25)
    for row, name in enumerate(grid.y.values):
        low, high = (1e-3, 1e-1) if name == "SGD" else (1e-4, 1e-2)
        for column, rate in enumerate(grid.x.values):
            score = grid.scores[row, column]
            if not low <= rate <= high:
                assert math.isnan(score)
                continue
            configuration = recorded.space.complete(best.parameters | {RATE: rate, NAME: name})
            assert score == pytest.approx(model.process.predict(recorded.encoding.points([configuration], [0.0]))[0][0])


def test_conditions_and_constraints_leave_gaps(state: SweepState) -> None:
    grid = grid_of(state, "model.no_margin", MARGIN)
    without_margin = grid.x.values.index(True)
    assert np.isnan(grid.scores[:, without_margin]).all()
    allowed = [margin < 0.45 for margin in grid.y.values]
    assert np.isfinite(grid.scores[:, 1 - without_margin]).tolist() == allowed and 0 < sum(allowed) < len(allowed)


def test_no_network_is_built(state: SweepState, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = copy.deepcopy(state)
    limited.header.sweep["constraints"] = ["gflops <= 50"]
    monkeypatch.setattr("reid_tune.search_space.costs._costs", Mock(side_effect=AssertionError))
    assert np.isfinite(grid_of(limited, RATE, NAME).scores).any()


def test_too_few_keys_or_trials(state: SweepState, tmp_path: Path) -> None:
    best = winner_run(state)
    assert best is not None and predict_grid(state, [(RATE, STEPS), (RATE, "unknown")], best) is None
    few = simulate(tmp_path, until="search", sections=SECTIONS | {"budget": {"trials": 2}}).folder
    assert predict_grid(replay(read_events(few / EVENTS)), [(RATE, NAME)], best) is None


@pytest.mark.parametrize("keys", [(RATE, NAME), (NAME, "model.no_margin"), ("model.no_margin", MARGIN)])
def test_categories_are_drawn_as_cells(state: SweepState, keys: tuple[str, str]) -> None:
    svg = contour_chart(state, grid_of(state, *keys), {RATE: "rate", NAME: "name"})
    assert svg.startswith("<svg ") and "var(--blue)" in svg
    assert ("rate (log)" in svg) == (RATE in keys) and ("AdamW" in svg) == (NAME in keys)


def test_numbers_are_drawn_as_contours(tmp_path: Path) -> None:
    folder = simulate(tmp_path, trials=12, until="search").folder
    numbers = replay(read_events(folder / EVENTS))
    for keys in [(RATE, MARGIN), (MARGIN, "train.optim.warmup_iters")]:
        svg = contour_chart(numbers, grid_of(numbers, *keys), {})
        assert svg.startswith("<svg ") and "var(--orange)" in svg and svg.count("<path") > 8
