from pathlib import Path

import pytest

from reid_tune.errors import RunFailedError
from reid_tune.search.sampler import suggestion_seed

from ..helpers.simulated_driver import (
    make_sweep,
    study_of,
)
from ..helpers.simulated_search import CONDITIONAL, GRID, MARGIN, NAME, RATE, TPE, searched, start, wait_in

pytestmark = pytest.mark.usefixtures("no_fsync")


def test_seeds_of_suggestions_are_all_unlike() -> None:
    seeds = {suggestion_seed(seed, number) for seed in (0, 1, 1234) for number in range(300)}
    assert len(seeds) == 900 and max(seeds) < 2**32
    assert suggestion_seed(1234, 7) == suggestion_seed(1234, 7)


def test_tpe_finds_better_trials_than_chance(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 3}, budget={"trials": 40})
        _, journal = searched(sweep, tmp_path / sampler)
        values = [trial.last("mAP") or 0.0 for trial in journal.state.trials[20:]]
        best[sampler] = sum(values) / len(values)
    assert best["tpe"] > best["random"]


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random"])
def test_every_trial_is_inside_its_ranges_and_constraints(tmp_path: Path, sampler: str) -> None:
    sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 4}, budget={"trials": 24}, **CONDITIONAL)
    source, journal = searched(sweep, tmp_path / "x")
    for trial in journal.state.trials[1:]:
        found = trial.parameters
        assert set(found) == set(sweep.file.space) - ({MARGIN} if found["model.no_margin"] else set())
        low, high = (1e-3, 1e-1) if found[NAME] == "SGD" else (1e-4, 1e-2)
        assert max(low, 5e-4) <= found[RATE] <= high
        assert found[NAME] == "AdamW" or found.get(MARGIN, 0.3) < 0.4
        assert not sweep.space.broken_constraints(found)
    if sampler != "tpe":
        return
    names = {name for _, params, *_ in study_of(source) for name in params}
    assert {f"{RATE}#0", f"{RATE}#1", "train.optim.lr_steps[0]", "train.optim.lr_steps[1]"} <= names


def test_where_the_sampler_finds_nothing_chance_does(tmp_path: Path) -> None:
    space = {RATE: {"uniform": [0, 1]}}
    sweep = make_sweep(
        tmp_path, space=space, constraints=[f"0.5 < {RATE} < 0.51"], search={"sampler": "tpe", "seed": 1}
    )
    _, journal = searched(sweep, tmp_path / "x")
    assert all(0.5 < trial.parameters[RATE] < 0.51 for trial in journal.state.trials[1:])
    assert len({trial.parameters[RATE] for trial in journal.state.trials[1:]}) == 8
    never = make_sweep(tmp_path, space=space, constraints=[f"1 / ({RATE} - {RATE}) > 0"])
    with pytest.raises(RunFailedError, match="trials/0001: 10,000 random configurations break the constraints"):
        wait_in(never, tmp_path / "never", 2)


@pytest.mark.parametrize(("rate", "inside"), [(3.5e-4, True), (5e-2, False)])
def test_trial_0_joins_the_study_inside_the_ranges_only(tmp_path: Path, rate: float, inside: bool) -> None:
    spec = {"train": {"num_epochs": 2, "optim": {"base_lr": rate, "bias_lr_factor": 1, "lr_steps": [2]}}}
    space = {
        "train.optim.base_lr": {"loguniform": [1e-4, 1e-2]},
        "train.optim.bias_lr_factor": {"choice": [1, 2]},
        "train.optim.lr_steps": {"choice": [[1], [2]]},
    }
    sweep = make_sweep(tmp_path, spec, space=space, search=TPE, budget={"trials": 1})
    source, journal = searched(sweep, tmp_path / "x", lambda experiment, epoch: 0.25 * epoch)
    parameters = {
        "train.optim.base_lr": rate,
        "train.optim.bias_lr_factor": "1.0",
        "train.optim.lr_steps": "[2]",
    }
    assert study_of(source) == ([("COMPLETE", parameters, 0.5, {1: 0.25, 2: 0.5})] if inside else [])
    journal.__exit__()
    assert study_of(start(sweep, tmp_path / "x")[0]) == study_of(source)


@pytest.mark.parametrize(("constraint", "inside"), [(f"{RATE} < 1e-3", True), (f"{RATE} > 1e-3", False)])
def test_trial_0_joins_the_study_within_the_constraints_only(tmp_path: Path, constraint: str, inside: bool) -> None:
    sweep = make_sweep(tmp_path, constraints=[constraint], search=TPE, budget={"trials": 1})
    source, _ = searched(sweep, tmp_path / "x")
    assert [state for state, *_ in study_of(source)] == (["COMPLETE"] if inside else [])


def test_trial_0_joins_the_study_with_the_ranges_that_hold_for_the_spec(tmp_path: Path) -> None:
    source, _ = searched(make_sweep(tmp_path, search=TPE, budget={"trials": 1}, **GRID), tmp_path / "x")
    assert study_of(source)[0][:2] == ("COMPLETE", {NAME: '"Adam"', "train.optim.warmup_iters": 1})


def test_a_grid_runs_every_combination_once(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, search={"sampler": "grid"}, budget={}, **GRID)
    _, journal = searched(sweep, tmp_path / "x")
    expected = [{NAME: "Adam", "train.optim.warmup_iters": warmup} for warmup in (0, 2, 3)]
    expected += [
        {NAME: "AdamW", "train.optim.warmup_iters": warmup, MARGIN: margin}
        for warmup in range(4)
        for margin in (0.2, 0.3, 0.4)
        if margin < 0.35 or warmup
    ]
    assert [trial.parameters for trial in journal.state.trials] == [{}, *expected]


def test_tpe_learns_under_conditions_and_constraints(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 3}, budget={"trials": 40}, **CONDITIONAL)
        _, journal = searched(sweep, tmp_path / sampler)
        values = [trial.last("mAP") or 0.0 for trial in journal.state.trials[20:]]
        best[sampler] = sum(values) / len(values)
    assert best["tpe"] > best["random"]
