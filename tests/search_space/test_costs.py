"""Constraints on costs that follow from the spec."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from reid_tune.config.load import with_parameters
from reid_tune.errors import InputError
from reid_tune.journal.events import StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import trial_run
from reid_tune.modeling.cost import COST_FIELDS, _cost, model_cost
from reid_tune.search.asha import NO_RUNGS
from reid_tune.search.space_check import validate_space
from reid_tune.search.study import Study
from reid_tune.search.warm_start import initial_points
from reid_tune.search_space.costs import ValuesWithCosts, _costs
from reid_tune.search_space.load import count_configurations
from reid_tune.sweep.resume import make_header
from reid_tune.sweep.stages.search import TrialSource

from ..helpers.simulated_driver import drive, make_sweep

HEIGHT, DEPTH = "model.input_height", "model.feat_dim"
SPACE: dict[str, Any] = {HEIGHT: {"choice": [64, 128, 192]}, "train.optim.base_lr": {"loguniform": [1e-4, 1e-2]}}
SPEC = {"model": {"backbone": "resnet18"}, "train": {"num_epochs": 3}, "dataset": {"train_dataset_dir": "nowhere"}}


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random"])
def test_no_suggestion_is_above_a_limit(tmp_path: Path, sampler: str) -> None:
    limits = ["gflops <= 2.5", "parameters < 12e6", "embedding_dim == 256"]
    sweep = make_sweep(
        tmp_path, SPEC, space=SPACE, constraints=limits, search={"sampler": sampler}, budget={"trials": 12}
    )
    validate_space(sweep, 50)
    study, heights, computed = Study(sweep), set[int](), _costs.cache_info().misses
    for number in range(1, 12):
        configuration = study.ask(trial_run(number), number)
        assert configuration is not None
        heights.add(configuration[HEIGHT])
        assert model_cost(with_parameters(sweep.experiment, configuration, ""))["gflops"] <= 2.5
        study.tell(trial_run(number), "finished", 0.1 * number, {3: 0.1 * number})
    assert heights == {64, 128}
    assert _costs.cache_info().misses == computed, "suggestions wait for no network"


def test_the_costs_are_those_of_the_spec(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, SPEC, space=SPACE)
    costs = model_cost(with_parameters(sweep.experiment, {HEIGHT: 64}, ""))
    values = ValuesWithCosts(sweep.space.base | {HEIGHT: 64})
    assert {name: values[name] for name in costs} == costs
    with pytest.raises(KeyError):
        values["latency"]


def test_fields_that_are_left_out_of_the_cost_do_not_change_it(tmp_path: Path) -> None:
    experiment = make_sweep(tmp_path, SPEC, space=SPACE).experiment
    others = {"dropout_rate": 0.3, "drop_path": 0.0, "drop_out": 0.2, "att_drop_rate": 0.1, "pretrain_choice": "self"}
    others |= {"no_margin": True, "label_smooth": False, "pretrain_hw_ratio": 1.0, "pretrained_model_path": "/a.pth"}
    for backbone in ("resnet18", "test_vit"):
        size = {"input_height": 64, "input_width": 64, "backbone": backbone}
        model = experiment.model.model_copy(update=size)
        assert others.keys().isdisjoint(COST_FIELDS)
        # The wrapped function builds the network of all fields.
        assert _cost.__wrapped__(model) == _cost.__wrapped__(model.model_copy(update=others))


def test_loading_a_file_builds_no_network(tmp_path: Path) -> None:
    computed = _costs.cache_info().misses
    space = {HEIGHT: {"quniform": [64, 512, 32]}, DEPTH: {"choice": [72, 88]}}
    assert make_sweep(tmp_path, SPEC, space=space, constraints=["gflops <= 0.1"], budget={"trials": 20})
    assert _costs.cache_info().misses == computed


def test_ranges_of_many_networks_are_searched_in_some_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, rate = "train.optim.name", "train.optim.base_lr"
    monkeypatch.setattr("reid_tune.search.space_check.MAX_NETWORKS", 8)
    space = SPACE | {DEPTH: {"int": [64, 2048]}, name: {"choice": ["SGD", "Adam"]}}
    space[rate] = [{"uniform": [0.01, 0.1], "when": {name: option}} for option in ("SGD", "Adam")]
    for seed in range(3):
        sweep = make_sweep(tmp_path, SPEC, space=space, constraints=["gflops <= 2.5"], search={"seed": seed})
        experiments = validate_space(sweep, 100).experiments
        assert 92 <= len(experiments) < 100, "those above the limit are left out, where this is known"


BUNDLES = [{"name": "small", "model.backbone": "resnet18"}, {"name": "large", "model.backbone": "resnet50"}]


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("gflops <= 0.1", "only 0 of 40 random configurations satisfy all, 40 break gflops <= 0.1"),
        ("gflops <= 3.8", "no configuration of bundle large satisfies all, most break gflops <= 3.8"),
        ("gflop <= 5", "gflop is not a key of the spec"),
        ("gflops <= re_ranking.k1", "re-ranking is searched separately"),
    ],
)
def test_limits_that_cannot_be_kept_are_named(tmp_path: Path, constraint: str, message: str) -> None:
    space = {HEIGHT: {"value": 192}, "re_ranking.k1": {"int": [5, 9]}}
    with pytest.raises(InputError, match=message):
        validate_space(make_sweep(tmp_path, SPEC, bundle=BUNDLES, space=space, constraints=[constraint]), 40)
    assert not (tmp_path / "runs").exists()


def test_limits_on_costs_do_not_restrict_re_ranking(tmp_path: Path) -> None:
    space = {HEIGHT: {"value": 64}, "re_ranking.k1": {"int": [5, 9]}}
    sweep = make_sweep(tmp_path, SPEC, bundle=BUNDLES, space=space, constraints=["gflops <= 1.5"])
    assert sweep.space.constraints and not sweep.re_ranking.constraints


def test_a_network_that_cannot_be_built_is_not_allowed(tmp_path: Path) -> None:
    space = {"model.backbone": {"choice": ["resnet18", "no_such_network"]}}
    sweep = make_sweep(tmp_path, SPEC, space=space, constraints=["gflops <= 50"])
    unknown = {"model.backbone": "no_such_network"}
    assert sweep.space.allows({}) and not sweep.space.allows(unknown)
    assert sweep.space.allows(unknown, with_costs=False)
    with pytest.raises(InputError, match="gflops <= 50: cannot be computed for the network: .*no_such_network"):
        validate_space(sweep, 20)


def test_a_large_grid_builds_a_network_only_where_it_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid_tune.search.space_check.MAX_NETWORKS", 2)
    monkeypatch.setattr("reid_tune.search_space.load.MAX_NETWORKS", 2)
    computed = _costs.cache_info().misses
    space = {HEIGHT: {"quniform": [64, 1024, 32]}, DEPTH: {"choice": [98, 106, 114]}}
    sweep = make_sweep(
        tmp_path, SPEC, space=space, constraints=["gflops <= 2.5"], search={"sampler": "grid"}, budget={}
    )
    assert sweep.file.budget.trials == 1 + 31 * 3 and count_configurations(sweep.space, 100) == 100
    assert _costs.cache_info().misses == computed
    checked = validate_space(sweep, 50)
    assert _costs.cache_info().misses == computed + 2
    assert len(checked.experiments) == 31 * 3
    assert checked.warnings == [
        "gflops <= 2.5: tested for 2 of 93 networks only, as each takes 0.1 to 0.3 s; "
        "the network of every suggestion is tested before it starts."
    ]
    study = Study(sweep)
    heights = [study.ask(trial_run(number), number) for number in range(1, 7)]
    assert [(made or {})[HEIGHT] for made in heights] == [64, 64, 64, 96, 96, 96]
    assert _costs.cache_info().misses == computed + 6


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random", "grid"])
def test_no_trial_starts_above_a_limit_that_was_tested_for_few_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setattr("reid_tune.search.space_check.MAX_NETWORKS", 3)
    space = {HEIGHT: {"choice": [192, 64, 96, 128]}, DEPTH: {"choice": [256, 128]}}
    search = {"sampler": sampler, "start_from": [{HEIGHT: 128}]}
    limits = ["gflops <= 2.5"]
    sweep = make_sweep(tmp_path, SPEC, space=space, constraints=limits, search=search, budget={"trials": 9})
    assert validate_space(sweep, 50).warnings
    with Journal(sweep.folder) as journal:
        journal.emit(make_header(sweep))
        points = [asdict(point) for point in initial_points(sweep)[0]]
        journal.emit(StageDone(stage="preflight", result={"initial_points": points}))
        source = TrialSource(sweep, journal, NO_RUNGS)
        drive(source)
        trials = journal.state.trials
    # 64, 96 and 128 pixels with 256 or 128 dimensions; trial 0 is the spec itself.
    assert [trial.parameters[HEIGHT] for trial in trials if trial.number].count(192) == 0
    assert (len(trials), source.end_reason()) == (7, "space")


def test_a_plan_counts_only_what_the_limits_allow(tmp_path: Path) -> None:
    space = {HEIGHT: {"choice": [64, 128, 192]}, DEPTH: {"choice": [256, 128]}}
    for sampler in ("grid", "auto"):
        sweep = make_sweep(
            tmp_path, SPEC, space=space, constraints=["gflops <= 2.5"], search={"sampler": sampler}, budget={}
        )
        assert sweep.file.budget.trials == 7
        assert count_configurations(sweep.space, 7) == 4


def test_a_grid_without_a_network_within_the_limits_is_refused(tmp_path: Path) -> None:
    sweep = make_sweep(
        tmp_path,
        SPEC,
        space={HEIGHT: {"choice": [64, 128]}},
        constraints=["gflops <= 0.1"],
        search={"sampler": "grid"},
        budget={},
    )
    with pytest.raises(InputError, match="only 0 of 2 combinations of the grid satisfy all, 2 break gflops <= 0.1"):
        validate_space(sweep, 50)
