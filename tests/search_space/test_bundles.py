"""Bundles: keys whose values are chosen together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_tune.config.load import with_parameters
from reid_tune.errors import InputError
from reid_tune.journal.state import trial_run
from reid_tune.search.asha import Rungs
from reid_tune.search.configurations import KnownConfigurations
from reid_tune.search.study import Study
from reid_tune.search.warm_start import parse_user_point
from reid_tune.search_space.bundles import expand_bundles
from reid_tune.search_space.load import SweepConfig, load_sweep
from reid_tune.search_space.space import grid_configurations

from ..helpers.search_spaces import make_space
from ..helpers.simulated_driver import SPEC, make_sweep, write_sweep

BACKBONE, WEIGHTS, HEIGHT = "model.backbone", "model.pretrained_model_path", "model.input_height"
RATE, NAME, MOMENTUM = "train.optim.base_lr", "train.optim.name", "train.optim.momentum"
SMALL = {"name": "small", BACKBONE: "resnet_50", WEIGHTS: "/r50.pth", RATE: {"loguniform": [1e-4, 1e-3]}}
LARGE = {
    BACKBONE: "swin_tiny_patch4_window7_224",
    WEIGHTS: "/swin.pth",
    HEIGHT: {"choice": [224, 288]},
    RATE: [
        {"loguniform": [1e-5, 1e-4], "when": {NAME: "Adam"}},
        {"loguniform": [1e-3, 1e-2], "when": {NAME: "SGD"}},
    ],
}
NAMES = {NAME: {"choice": ["Adam", "SGD"]}}
SWIN = "swin_tiny_patch4_window7_224"


def sweep_of(folder: Path, sampler: str = "random", **values: Any) -> SweepConfig:
    sections = {"bundle": [SMALL, LARGE], "space": NAMES, "search": {"sampler": sampler, "seed": 1}} | values
    return make_sweep(folder, **sections)


def require_a_bundle(configuration: Mapping[str, Any]) -> None:
    """Reference: what the two bundles allow, written out."""
    if configuration["bundle"] == "small":
        assert configuration[BACKBONE] == "resnet_50" and configuration[WEIGHTS] == "/r50.pth"
        assert HEIGHT not in configuration and 1e-4 <= configuration[RATE] <= 1e-3
        return
    assert configuration["bundle"] == SWIN == configuration[BACKBONE]
    assert configuration[WEIGHTS] == "/swin.pth" and configuration[HEIGHT] in (224, 288)
    low, high = (1e-5, 1e-4) if configuration[NAME] == "Adam" else (1e-3, 1e-2)
    assert low <= configuration[RATE] <= high


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random"])
def test_keys_of_a_bundle_go_together(tmp_path: Path, sampler: str) -> None:
    sweep = sweep_of(tmp_path, sampler, budget={"trials": 24}, constraints=[f"bundle == 'small' or {NAME} == 'SGD'"])
    study, bundles = Study(sweep, Rungs((2,))), set[str]()
    study.add_trial(trial_run(0), {})
    for number in range(1, 24):
        run = trial_run(number)
        configuration = study.ask(run, number)
        assert configuration is not None
        require_a_bundle(configuration)
        assert configuration["bundle"] == "small" or configuration[NAME] == "SGD"
        bundles.add(configuration["bundle"])
        experiment = with_parameters(sweep.experiment, configuration, run)
        assert experiment.model.backbone == configuration[BACKBONE]
        score = 0.5 - abs(np.log10(configuration[RATE] / 5e-4)) / 10
        study.tell(run, "finished", score, {2: score / 2, 6: score})
    assert bundles == {"small", SWIN}


def test_a_grid_has_every_value_of_every_bundle(tmp_path: Path) -> None:
    small, large = SMALL | {RATE: {"choice": [1e-4, 1e-3]}}, LARGE | {RATE: 1e-2}
    sweep = sweep_of(tmp_path, "grid", bundle=[small, large], budget={})
    rows = [tuple(row.get(key) for key in ("bundle", RATE, HEIGHT, NAME)) for row in grid_configurations(sweep.space)]
    assert rows == [
        *(("small", rate, None, name) for rate in (1e-4, 1e-3) for name in ("Adam", "SGD")),
        *((SWIN, 1e-2, height, name) for height in (224, 288) for name in ("Adam", "SGD")),
    ]
    assert sweep.file.budget.trials == 9


def test_several_lists_are_independent() -> None:
    errors: list[str] = []
    tree = expand_bundles({"model": [{BACKBONE: "a"}, {BACKBONE: "b"}], "optim": [{NAME: "SGD", RATE: 0.1}]}, errors)
    assert not errors
    space = make_space(tree)
    assert [row["bundle.model"] + row["bundle.optim"] for row in space.all_configurations()] == ["aSGD", "bSGD"]


@pytest.mark.parametrize(
    ("spec", "bundle"),
    [
        ({"backbone": "resnet_50", "pretrained_model_path": "/r50.pth"}, "small"),
        ({"backbone": SWIN, "pretrained_model_path": "/swin.pth", "input_height": 224}, SWIN),
        ({"backbone": "resnet_50"}, None),
    ],
)
def test_the_spec_may_be_in_a_bundle(tmp_path: Path, spec: dict[str, Any], bundle: str | None) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SPEC | {"model": spec}, bundle=[SMALL, LARGE], space=NAMES))
    assert sweep.space.base["bundle"] == bundle
    point = parse_user_point(sweep, {NAME: "SGD"}, "enqueue")
    assert point["bundle"] == bundle and point.get(BACKBONE) == (spec["backbone"] if bundle else None)


def test_users_name_a_bundle_or_its_values(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    for pairs in ({"bundle": "small"}, {BACKBONE: "resnet_50", WEIGHTS: "/r50.pth"}, {WEIGHTS: "/r50.pth"}):
        point = parse_user_point(sweep, {**pairs, RATE: 2e-4}, "enqueue")
        require_a_bundle(point)
        assert (point["bundle"], point[RATE]) == ("small", 2e-4)
    for pairs, message in (
        ({"bundle": "medium"}, "bundle = 'medium' is not the name of a bundle; there are small, swin"),
        ({BACKBONE: "vit"}, "no bundle has model.backbone = 'vit'; there are small"),
        ({"bundle": "small", BACKBONE: SWIN}, f"{BACKBONE} = '{SWIN}': the space sets it to 'resnet_50'"),
        ({"bundle": "small", HEIGHT: 224}, "is not searched with these values"),
    ):
        with pytest.raises(InputError, match=message):
            parse_user_point(sweep, pairs, "enqueue")


def test_ranges_tell_bundles_with_equal_fixed_values_apart(tmp_path: Path) -> None:
    low = {"name": "low", BACKBONE: "resnet_50", RATE: {"loguniform": [1e-4, 5e-4]}}
    sweep = sweep_of(tmp_path, bundle=[low, low | {"name": "high", RATE: {"loguniform": [1e-3, 1e-2]}}])
    assert sweep.space.base["bundle"] == "low"
    names = [parse_user_point(sweep, {RATE: rate}, "enqueue")["bundle"] for rate in (2e-4, 5e-3, 0.1)]
    assert names == ["low", "high", "low"]


def test_bundles_with_the_same_values_train_the_same_model(tmp_path: Path) -> None:
    twin = SMALL | {"name": "twin", RATE: {"loguniform": [5e-4, 1e-2]}}
    sweep = sweep_of(tmp_path, bundle=[SMALL, twin])
    points = [parse_user_point(sweep, {"bundle": name, RATE: 7e-4}, "enqueue") for name in ("small", "twin")]
    known = KnownConfigurations(sweep)
    known.add(points[0])
    assert points[1] in known and points[0] != points[1]


def test_paths_of_weights_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    choice = {"choice": ["a.pth", "s3://bucket/b.pth", "models:/people@champion", None]}
    sweep = sweep_of(tmp_path, bundle=(), space={WEIGHTS: choice})
    absolute = [str(tmp_path / "a.pth"), "s3://bucket/b.pth", "models:/people@champion"]
    assert sweep.weights == absolute
    assert sweep.file.space == {WEIGHTS: {"choice": [*absolute, None]}}, "another folder reads the same"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bundle": "r50"}, "bundle = 'r50': write a list of bundles"),
        ({"bundle": {"model": 3}}, "bundle.model = 3: write a list of bundles"),
        ({"bundle": {"a.b": [SMALL]}}, "bundle.a.b: use letters, digits"),
        ({"bundle": [3]}, r"bundle = \[3\]: write a list of bundles"),
        ({"bundle": [{"name": "x"}]}, "bundle.0: it has no keys of the spec"),
        ({"bundle": [{RATE: {"uniform": [0, 1]}}]}, "bundle.0: its name cannot be derived"),
        ({"bundle": [SMALL, SMALL]}, "bundle.1: another one is named small"),
        ({"bundle": [SMALL | {"name": "a/b"}]}, "bundle.0: name = 'a/b'"),
        ({"bundle": [SMALL | {"train.optim.steps": [2], "train.optim.lr_steps": [3]}]}, "bundle.0: .* is given twice"),
        (
            {"bundle": [SMALL, LARGE | {HEIGHT: {"value": 224, "when": {"bundle": "small"}}}]},
            f"bundle.1: {HEIGHT}: its `when` names bundle",
        ),
        ({"bundle": [SMALL | {RATE: {"uniform": [1, 0]}}]}, f"{RATE}: uniform = .* low must be below high"),
        ({"bundle": [SMALL | {"model.backbones": "x"}]}, "model.backbones: the spec has no such key"),
        ({"bundle": [SMALL, LARGE], "space": {RATE: {"uniform": [0, 1]}}}, f"space.{RATE} is also in a bundle"),
        ({"bundle": {"a": [SMALL], "b": [{RATE: 0.1}]}}, f"bundle.b: {RATE} is also in another list"),
        (
            {"bundle": [SMALL], "space": {MOMENTUM: {"value": 0.5, "when": {"bundle": "x"}}}},
            "bundle never has the value 'x'",
        ),
        ({"bundle": [{NAME: "SGD", "re_ranking.k1": 5}]}, "re_ranking.k1 has a condition on bundle"),
        ({"space": {"bundle": {"uniform": [0, 1]}}}, "write the names of the bundles as a choice"),
    ],
)
def test_faulty_bundles(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_sweep(tmp_path, **{"space": NAMES} | values)
    assert "Traceback" not in str(caught.value) and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("bundles", [[SMALL], [SMALL, LARGE]])
def test_a_faulty_condition_is_one_error(bundles: list[Any]) -> None:
    errors: list[str] = []
    entries = expand_bundles([*bundles, {"name": "x", "model.neck": "no", MOMENTUM: {"value": 1, "when": 3}}], errors)
    assert errors == [
        f"bundle.{len(bundles)}: {MOMENTUM}: when = 3: write conditions, such as {{train.optim.name: SGD}}."
    ]
    assert not {MOMENTUM, "model.neck"} & entries.keys()


def test_all_faults_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        make_sweep(
            tmp_path,
            budget={"trials": 0},
            confirm={"seed": 3},
            storage="a\nb",
            constraints=["train.optim.gama < 1", "1 +"],
            bundle=[{"name": "x"}, SMALL, LARGE],
            space={
                RATE: {"uniform": [0, 1]},
                "model.pooling": {"choice": []},
                MOMENTUM: {"value": 1, "when": {"a": 1}},
            },
        )
    message = str(caught.value)
    keys = [
        "budget.trials",
        "confirm.seed",
        "storage",
        "gama",
        "'1 +'",
        "bundle.0",
        f"space.{RATE}",
        "space.model.pooling",
    ]
    assert [key for key in [*keys, f"space.{MOMENTUM}"] if key not in message] == []
    assert "9 problems" in message, "the faulty bundle may have the key that another condition names"


def test_three_keys_are_enough(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    path.write_text("name: people-2\nspec: spec.yaml\nspace: {train.optim.base_lr: {loguniform: [1.0e-4, 1.0e-2]}}\n")
    file = load_sweep(path).file
    assert (file.budget.trials, file.registry.model, file.storage) == (32, "people-2", "runs")
