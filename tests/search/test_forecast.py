"""Forecasts of simulated searches, and the end of a search that they decide."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from reid_tune.config.experiment import Experiment
from reid_tune.execution.run_source import ResourceRequest
from reid_tune.execution.stage_resources import StageResources
from reid_tune.journal.costs import EpochTiming
from reid_tune.journal.journal import Journal
from reid_tune.search.acquisition import expected_improvement
from reid_tune.search.asha import Rungs
from reid_tune.search.budget import BudgetTracker
from reid_tune.search.forecast import Forecaster, forecast_of
from reid_tune.search.joint_sampler import draw_candidates
from reid_tune.search.recorded_trials import RecordedTrials, ended_trials
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.search import TrialSource

from ..helpers.simulated_driver import drive, epoch_metrics, make_sweep, outcome
from ..helpers.simulated_search import LEVELS, RATE, begin, searched

pytestmark = pytest.mark.usefixtures("no_fsync")
SPACE = {RATE: {"loguniform": [1e-4, 1e-2]}}


def peak(experiment: Experiment, epoch: int) -> float:
    """Half at the best rate, 1e-3, less by a tenth of the squared logarithm's distance."""
    distance = np.log10(experiment.train.optim.base_lr) + 3
    return float(0.5 - 0.1 * distance**2) * epoch / experiment.train.num_epochs


def smooth(folder: Path, **values: Any) -> SweepConfig:
    return make_sweep(folder, **({"space": SPACE, "search": {"sampler": "auto", "seed": 1}} | values))


def search_with_budget(sweep: SweepConfig, folder: Path, trials: int | None = None) -> Journal:
    """Search until the budget ends it, or for at most that many trials of this process."""
    journal = begin(sweep, folder)
    resources = StageResources(ResourceRequest(), 1)
    tracker = BudgetTracker(sweep, resources, resources, EpochTiming(1, 1), lambda: 0.0)
    tracker.state = journal.state
    journal.listeners.append(tracker.apply)
    source = TrialSource(sweep, journal, Rungs(LEVELS), budget_tracker=tracker)
    if trials is None:
        drive(source, peak)
    for _ in range(trials or 0):
        attempt = source.next_attempt()
        assert attempt is not None
        epochs = range(1, attempt.experiment.train.num_epochs + 1)
        all(source.report(attempt.run, epoch_metrics(attempt.experiment, epoch, peak)) for epoch in epochs)
    journal.__exit__(None, None, None)
    return journal


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random"])
def test_the_best_score_is_predicted_whichever_sampler_searched(tmp_path: Path, sampler: str) -> None:
    sweep = smooth(tmp_path, search={"sampler": sampler, "seed": 1}, budget={"trials": 12})
    _, journal = searched(sweep, tmp_path / "x", peak)
    forecast = forecast_of(journal.state)
    assert forecast is not None
    best = journal.state.finished()[0]
    assert abs(forecast.mean - (best.last("mAP") or 0)) < 0.01
    assert forecast.low < forecast.mean < forecast.high < forecast.low + 0.1
    assert 0 <= forecast.gain < 0.5 - forecast.mean + 0.02 and forecast.gain_for_length == forecast.gain


def test_few_trials_and_an_unreadable_space_have_no_forecast(tmp_path: Path) -> None:
    _, journal = searched(smooth(tmp_path, budget={"trials": 3}), tmp_path / "x", peak)
    assert forecast_of(journal.state) is None
    _, journal = searched(smooth(tmp_path, budget={"trials": 8}), tmp_path / "y", peak)
    assert forecast_of(journal.state) is not None
    journal.state.header.sweep["space"] = {"gone": {"uniform": [0, 1]}}
    assert forecast_of(journal.state) is None


def test_the_forecast_is_a_function_of_the_ended_trials(tmp_path: Path) -> None:
    source, journal = searched(smooth(tmp_path, budget={"trials": 8}), tmp_path / "x", peak)
    kept = Forecaster()
    before = kept.forecast(journal.state)
    assert before is not None and asdict(before) == asdict(forecast_of(journal.state) or before)
    source.sweep.file.budget.__dict__["trials"] = 9
    attempt = source.next_attempt()
    assert attempt is not None
    source.report(attempt.run, {"epoch": 1, "mAP": 0.9})
    assert kept.forecast(journal.state) == forecast_of(journal.state) == before


def test_longer_trials_gain_less_for_their_length(tmp_path: Path) -> None:
    space = SPACE | {"train.num_epochs": {"choice": [6, 12]}}
    sweep = smooth(tmp_path, space=space, budget={"trials": 10})
    _, journal = searched(sweep, tmp_path / "x", peak)
    forecast = forecast_of(journal.state)
    assert forecast is not None and forecast.gain / 2 <= forecast.gain_for_length <= forecast.gain


def height_cost(text: str) -> dict[str, float]:
    return {"gflops": json.loads(text)["input_height"]}


def test_few_networks_are_built_for_a_limit_on_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Mock(side_effect=height_cost)
    monkeypatch.setattr("reid_tune.search_space.costs._costs", build)
    space = SPACE | {"model.input_height": {"int": [32, 512]}}
    sweep = smooth(tmp_path, space=space, constraints=["gflops <= 300"], budget={"trials": 10})
    _, journal = searched(sweep, tmp_path / "x", peak)
    build.reset_mock()
    forecast = forecast_of(journal.state)
    assert forecast is not None and forecast.gain == forecast.gain_for_length
    assert build.call_count < 40
    recorded, ended = RecordedTrials(journal.state), ended_trials(journal.state)
    model = recorded.model(ended)
    assert model is not None
    random = np.random.default_rng([1, len(ended)])
    allowed = [draw for draw in draw_candidates(recorded.encoding, random, model.best) if recorded.space.allows(draw)]
    points = recorded.encoding.points(allowed, [0.0] * len(allowed))
    assert forecast.gain == pytest.approx(expected_improvement(*model.predict(points), forecast.mean).max())


def test_a_trial_that_ends_needs_one_new_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, journal = searched(smooth(tmp_path, budget={"trials": 8}), tmp_path / "x", peak)
    forecaster, fit = Forecaster(), Mock(side_effect=RecordedTrials.model)
    monkeypatch.setattr(RecordedTrials, "model", lambda *arguments: fit(*arguments))
    counts = []
    for trials in range(8, 12):
        source.sweep.file.budget.__dict__["trials"] = trials
        drive(source, peak)
        assert forecaster.is_gain_below(journal.state, 1.0, for_length=False) and forecaster.forecast(journal.state)
        counts.append(fit.call_count)
    assert counts == [3, 4, 5, 6]


def test_a_search_ends_when_a_further_trial_gains_too_little_and_a_resumed_one_at_the_same_trial(
    tmp_path: Path,
) -> None:
    sweep = smooth(tmp_path, budget={"trials": 60, "patience": {"min_gain": 0.05}})
    whole = search_with_budget(sweep, tmp_path / "whole")
    count = len(whole.state.trials)
    assert 6 < count < 40
    assert (whole.state.finished()[0].last("mAP") or 0) > 0.49
    for trials in (2, count - 3, count - 1):
        folder = tmp_path / f"resumed-{trials}"
        search_with_budget(sweep, folder, trials)
        assert outcome(search_with_budget(sweep, folder)) == outcome(whole)


def test_a_larger_least_gain_ends_a_search_earlier(tmp_path: Path) -> None:
    counts = []
    for min_gain in (0.01, 0.2, 5):
        sweep = smooth(tmp_path, budget={"trials": 40, "patience": {"min_gain": min_gain}})
        counts.append(len(search_with_budget(sweep, tmp_path / str(min_gain)).state.trials))
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1] >= 6
