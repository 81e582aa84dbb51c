import json
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from reid_tune.execution.probe_steps import ProbeResult
from reid_tune.execution.run_source import ResourceRequest
from reid_tune.execution.stage_resources import StageResources
from reid_tune.search.asha import Asha, rung_epochs
from reid_tune.sweep.plan import expected_epochs, make_plan, plan_until

from ..helpers.simulated_driver import EPOCHS, make_sweep

Values = Callable[[random.Random], Callable[[], float]]


def fresh(rng: random.Random) -> Callable[[], float]:
    """At each rung another value."""
    return rng.random


def steady(rng: random.Random) -> Callable[[], float]:
    """At all rungs the same value."""
    value = rng.random()
    return lambda: value


def simulated_epochs(trials: int, levels: tuple[int, ...], factor: int, num_epochs: int, values: Values) -> float:
    """Mean epochs of the trials after trial 0 in searches with the real ASHA, one trial after the other."""
    totals, rng = [], random.Random(1)
    for _ in range(400):
        asha, total = Asha(levels, factor), 0
        for number in range(trials + 1):
            value, epoch, continues = values(rng), 0, True
            while epoch < num_epochs and continues:
                epoch += 1
                continues = asha.should_continue("run", epoch, value() if epoch in levels else 0.0) or number == 0
            total += epoch if number else 0
        totals.append(total)
    return fmean(totals)


@pytest.mark.parametrize(("trials", "factor"), [(1, 3), (7, 2), (7, 3), (40, 3), (25, 4)])
def test_the_expected_epochs_are_those_of_simulated_searches(trials: int, factor: int) -> None:
    levels = rung_epochs(2, factor, 20)
    expected = expected_epochs(trials, levels, factor, 20)
    assert expected == pytest.approx(simulated_epochs(trials, levels, factor, 20, fresh), rel=0.03)
    assert 1 <= simulated_epochs(trials, levels, factor, 20, steady) / expected < (1.2 if trials > 20 else 1.7)


def test_in_a_long_search_one_in_three_continues() -> None:
    assert expected_epochs(30_000, (3, 9), 3, 30) == pytest.approx(30_000 * (3 + 6 / 3 + 21 / 9), rel=1e-3)
    assert expected_epochs(5, (), 3, 30) == 150
    assert expected_epochs(5, (40,), 3, 30) == 150
    assert expected_epochs(0, (3, 9), 3, 30) == 0


MEASURED = ProbeResult(decoding=9, start=36, step=1.5, steps=20, validation=12, memory=10**9, gpu_memory=0)


def make(folder: Path, gpus: float = 0, **sections: Any) -> dict[str, Any]:
    sweep = make_sweep(folder, **sections)
    return make_plan(
        sweep, (), MEASURED, StageResources(ResourceRequest(2, gpus), 3), StageResources(ResourceRequest(2, gpus), 1)
    )


def test_the_plan_without_a_scheduler(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"confirm": {"candidates": 1, "repeats": 2}, "budget": {"trials": 9}}
    found = make(tmp_path, **sections)
    seconds = 36 + EPOCHS * (20 * 1.5 + 12)
    refit = 36 + EPOCHS * (20 * 1.5 + 12) / 0.8
    hours = {"search": 3 * seconds / 3600, "confirm": 2 * seconds / 3600, "refit": 2 * refit / 3600}
    runs = {"search": 9, "confirm": 4, "refit": 2}
    held = {"search": 9 * seconds / 3600, "confirm": 4 * seconds / 3600, "refit": 2 * refit / 3600}
    for name, stage in found["stages"].items():
        assert (stage["runs"], stage["epochs"]) == (runs[name], runs[name] * EPOCHS)
        assert stage["hours"] == pytest.approx(hours[name], abs=1e-4)
        assert (stage["cpu_hours"], stage["gpu_hours"]) == (pytest.approx(2 * held[name], abs=1e-4), 0)
    assert found["hours"] == pytest.approx(sum(hours.values()), abs=1e-4)
    assert found["cpu_hours"] == pytest.approx(2 * sum(held.values()), abs=1e-4)
    assert (found["trials"], found["max_concurrent"], found["warnings"]) == (9, 3, [])
    assert found["timing"] == {"start": 36, "epoch": 42}
    assert json.loads(json.dumps(found)) == found


def test_a_plan_until_a_stage_has_no_later_ones(tmp_path: Path) -> None:
    plan = make(tmp_path)
    assert plan_until(plan, "register") == plan_until(plan, "refit") == plan
    search = plan_until(plan, "confirm")
    assert list(search["stages"]) == ["search", "confirm"]
    stages = plan["stages"]
    assert search["hours"] == pytest.approx(stages["search"]["hours"] + stages["confirm"]["hours"], abs=1e-4)
    assert plan_until(plan, "preflight") == plan | {"stages": {}, "hours": 0, "gpu_hours": 0, "cpu_hours": 0}


def test_asha_and_rare_validations_make_a_plan_shorter(tmp_path: Path) -> None:
    whole = make(tmp_path)["stages"]["search"]
    resources = StageResources(ResourceRequest(2), 3)
    sweep = make_sweep(
        tmp_path, {"train": {"num_epochs": EPOCHS, "validation_interval": 4, "optim": {}}, "dataset": {}}
    )
    found = make_plan(sweep, (2,), MEASURED, resources, resources)
    assert found["timing"]["epoch"] == 30 + 12 * 3 / EPOCHS  # after epochs 2, 4 and 6
    assert found["stages"]["search"]["epochs"] < whole["epochs"]
    assert found["stages"]["search"]["hours"] < whole["hours"]


def test_a_budget_that_does_not_reach_is_warned_of(tmp_path: Path) -> None:
    assert make(tmp_path, budget={"trials": 9, "hours": 100, "cpu_hours": 100})["warnings"] == []
    whole = make(tmp_path, 0.5, budget={"trials": 9})
    late = {unit: 0.98 * whole[unit] for unit in ("hours", "gpu_hours", "cpu_hours")}
    lines = make(tmp_path, 0.5, budget={"trials": 9, **late})["warnings"]
    assert [line.split()[0] for line in lines] == ["budget.hours", "budget.gpu_hours", "budget.cpu_hours"]
    assert all("will end the search before its 9 trials" in line for line in lines)
    (line,) = make(tmp_path, budget={"trials": 9, "cpu_hours": 1})["warnings"]
    assert line.startswith("budget.cpu_hours = 1 is too low for trial 0, confirm and refit, which need about 3.9")


@pytest.mark.parametrize(
    ("sampler", "trials", "is_warned"), [("auto", 17, True), ("tpe", 17, True), ("auto", 18, False)]
)
def test_few_trials_for_the_sampler_are_warned_of(tmp_path: Path, sampler: str, trials: int, is_warned: bool) -> None:
    lines = make(tmp_path, budget={"trials": trials}, search={"sampler": sampler})["warnings"]
    assert bool(lines) == is_warned
    if lines:
        assert lines[0].startswith(f"17 trials with 3 at once are few for the sampler {sampler}: ")
        assert "raise budget.trials to 18 or lower resources.max_concurrent" in lines[0]
    assert make(tmp_path, budget={"trials": 9}, search={"sampler": "random"})["warnings"] == []
    assert make(tmp_path, budget={"trials": trials}, search={"learn_from": "earlier"})["warnings"] == []


@pytest.mark.parametrize(
    ("trials", "options", "is_warned"), [(6, 50, False), (7, 50, True), (12, 12, False), (12, 14, True)]
)
def test_a_first_try_and_a_space_that_is_used_up_are_not_warned_of(
    tmp_path: Path, trials: int, options: int, is_warned: bool
) -> None:
    space = {"dataset.padding": {"choice": list(range(options))}}
    lines = make(tmp_path, space=space, budget={"trials": trials}, search={"sampler": "auto"})["warnings"]
    assert bool(lines) == is_warned
    if is_warned:
        assert f"raise budget.trials to {min(18, options)} or lower" in lines[0]
