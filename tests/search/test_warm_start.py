"""Configurations that a user gives: in the sweep file, and for a running sweep."""

import json
from pathlib import Path
from typing import Any

import pytest

from reid_tune.config.load import with_parameters
from reid_tune.errors import InputError
from reid_tune.journal.events import EpochReported, RunEnded, RunSuggested
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import trial_run
from reid_tune.search.study import Study
from reid_tune.search.warm_start import TRIALS_PER_SWEEP, InitialPoint, initial_points, parse_user_point
from reid_tune.search_space.load import SweepConfig

from ..helpers.events import sweep_header
from ..helpers.simulated_driver import EPOCHS, make_sweep

NAME, RATE, SOFT = "train.optim.name", "train.optim.base_lr", "model.no_margin"
MARGIN, GAMMA, STEPS = "train.optim.triplet_loss_margin", "train.optim.gamma", "train.optim.lr_steps"
SIZE, INSTANCES = "dataset.batch_size", "dataset.num_instances"
SPACE: dict[str, Any] = {
    NAME: {"choice": ["Adam", "AdamW"]},
    RATE: {"loguniform": [1e-4, 1e-2]},
    SOFT: {"choice": [True, False]},
    MARGIN: {"uniform": [0.1, 0.6], "when": {SOFT: False}},
}
# The spec of all tests, in this space.
SPEC = {NAME: "Adam", RATE: 0.00035, SOFT: False, MARGIN: 0.3}

pytestmark = pytest.mark.usefixtures("no_fsync")


def sweep(folder: Path, *start_from: Any, **values: Any) -> SweepConfig:
    search = {"sampler": "random", "start_from": list(start_from)}
    return make_sweep(folder, **({"name": "later", "space": SPACE, "search": search} | values))


def earlier(
    folder: Path, trials: list[tuple[dict[str, Any], float, str]], spec: dict[str, Any] | None = None, **values: Any
) -> None:
    """The log of a sweep `first`: of each trial parameters, score and state."""
    first = sweep(folder, name="first", **values)
    experiment = with_parameters(first.experiment, spec or {}, "spec")
    with Journal(first.folder) as journal:
        content = {"sweep": first.file.model_dump(mode="json"), "spec": experiment.parameters()}
        journal.emit(sweep_header(name="first", uid="uid", lock=None, tracking_uri="", **content))
        for number, (parameters, score, state) in enumerate(trials):
            run = trial_run(number)
            journal.emit(RunSuggested(run=run, parameters=parameters))
            journal.emit(EpochReported(run=run, epoch=EPOCHS, metrics={first.file.metric: score}))
            journal.emit(RunEnded(run=run, state=state, epoch=EPOCHS))


def test_the_best_full_length_trials_of_an_earlier_sweep_come_first(tmp_path: Path) -> None:
    scores = [0.1, 0.5, 0.3, 0.9, 0.7, 0.2, 0.6, 0.4]
    trials = [({RATE: 1e-3 * (number + 1)}, score, "finished") for number, score in enumerate(scores)]
    trials[3] = ({RATE: 4e-3}, 0.9, "stopped")
    earlier(tmp_path, trials)
    found, warnings = initial_points(sweep(tmp_path, "first", {RATE: 5e-4}, {RATE: 7e-3}))
    order = [4, 6, 1, 7, 2]
    assert len(order) == TRIALS_PER_SWEEP and warnings == []
    expected = [InitialPoint(SPEC | {RATE: 1e-3 * (number + 1)}, f"first/{number}") for number in order]
    assert found == [*expected, InitialPoint(SPEC | {RATE: 5e-4}, "start_from")]  # 7e-3 is first/6.
    assert initial_points(sweep(tmp_path, search={"start_from": "first"}))[0] == expected
    assert initial_points(sweep(tmp_path)) == ([], [])


def test_an_earlier_trial_brings_what_its_spec_had_for_the_keys_of_this_space(tmp_path: Path) -> None:
    spec = {MARGIN: 0.45, "train.optim.weight_decay": 0.01, STEPS: [2, 3]}
    trials = [({}, 0.5, "finished"), ({RATE: 2e-3, INSTANCES: 8}, 0.4, "finished"), ({SOFT: True}, 0.3, "finished")]
    earlier(tmp_path, trials, spec, space={RATE: SPACE[RATE], INSTANCES: {"choice": [4, 8]}})
    space = SPACE | {STEPS: {"list": [{"int": [1, 2]}, {"int": [3, 4]}]}, GAMMA: {"value": 0.2}}
    found, _ = initial_points(sweep(tmp_path, "first", space=space))
    own = SPEC | {MARGIN: 0.45, STEPS: [2, 3], GAMMA: 0.2}
    soft = {key: value for key, value in own.items() if key != MARGIN} | {SOFT: True}
    assert [given.parameters for given in found] == [own, own | {RATE: 2e-3}, soft]


def test_the_spec_s_own_configuration_is_left_to_trial_0(tmp_path: Path) -> None:
    earlier(tmp_path, [({}, 0.5, "finished"), ({NAME: "AdamW"}, 0.4, "finished")])
    given, _ = initial_points(sweep(tmp_path, "first", {RATE: SPEC[RATE]}, {NAME: "AdamW"}))
    assert [found.origin for found in given] == ["first/1"]


def test_what_is_no_configuration_here_is_left_out_with_the_reason(tmp_path: Path) -> None:
    trials = [({RATE: 5e-3}, 0.5, "finished"), ({INSTANCES: 8}, 0.4, "finished"), ({INSTANCES: 16}, 0.3, "finished")]
    earlier(tmp_path, trials, space={RATE: SPACE[RATE], INSTANCES: {"choice": [8, 16]}})
    space = SPACE | {INSTANCES: {"choice": [4, 8, 16]}, SIZE: {"value": 24}}
    later = sweep(tmp_path, "first", space=space, constraints=[f"{RATE} < 4e-3"])
    given, warnings = initial_points(later)
    assert [found.origin for found in given] == ["first/1"]
    assert warnings[0] == f"trial first/0 is left out: the configuration breaks the constraint {RATE} < 4e-3."
    assert warnings[1].startswith("trial first/2 is left out: ") and "multiple" in warnings[1]
    assert len(warnings) == 2 and not any("\n" in warning for warning in warnings)


def test_trials_of_an_earlier_sweep_belong_to_the_bundle_with_their_values(tmp_path: Path) -> None:
    backbone = "model.backbone"
    bundles = [{"name": "a", backbone: "resnet_50"}, {"name": "b", backbone: "resnet18"}]
    trials = [({"bundle": "a", backbone: "resnet_50", RATE: 1e-3}, 0.5, "finished")]
    earlier(tmp_path, trials, bundle=bundles)
    swapped = [{"name": "a", backbone: "resnet18"}, {"name": "b", backbone: "resnet_50"}]
    (point,), _ = initial_points(sweep(tmp_path, "first", bundle=swapped))
    assert (point.parameters["bundle"], point.parameters[backbone]) == ("b", "resnet_50")


def test_values_outside_the_ranges_are_tried_but_not_told_to_optuna(tmp_path: Path) -> None:
    later = sweep(
        tmp_path,
        {RATE: "5e-2", SOFT: True},
        {RATE: 5e-3},
        search={"sampler": "tpe", "start_from": [{RATE: "5e-2"}, {RATE: 5e-3}]},
    )
    given, _ = initial_points(later)
    assert [found.parameters[RATE] for found in given] == [0.05, 0.005]
    study = Study(later)
    for number, found in enumerate(given, 1):
        study.add_trial(trial_run(number), json.loads(json.dumps(found.parameters)))
        study.tell(trial_run(number), "finished", 0.5, {1: 0.5})
    assert [trial.params[RATE] for trial in study.sampler.study.get_trials()] == [0.005]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ({RATE: 1e-3}, SPEC | {RATE: 1e-3}),
        ({RATE: "1e-3", NAME: "AdamW"}, SPEC | {RATE: 1e-3, NAME: "AdamW"}),
        ({SOFT: True}, {key: value for key, value in SPEC.items() if key != MARGIN} | {SOFT: True}),
        ({GAMMA: 0.2}, SPEC),
        ({"train.optim.steps": [2, 4]}, SPEC | {STEPS: [2, 4]}),
    ],
)
def test_what_a_user_gives_joins_the_spec_s_values(
    tmp_path: Path, pairs: dict[str, Any], expected: dict[str, Any]
) -> None:
    space = SPACE | {STEPS: {"choice": [[40, 70], [2, 3]]}, GAMMA: {"value": 0.2}}
    found = parse_user_point(sweep(tmp_path, space=space), pairs, "enqueue")
    assert found == {STEPS: [40, 70], GAMMA: 0.2} | expected


@pytest.mark.parametrize(
    ("pairs", "parts"),
    [
        ({"train.optim.base_rl": 1}, ["unknown key train.optim.base_rl", "did you mean train.optim.base_lr?"]),
        ({"zzzz": 1}, ["unknown key zzzz."]),
        ({"train.optim.weight_decay": 0.1}, ["train.optim.weight_decay is not searched by trials", RATE]),
        ({"re_ranking.k1": 9}, ["re_ranking.k1 is not searched by trials"]),
        ({RATE: -1}, [f"{RATE} = -1"]),
        ({RATE: "fast"}, [f"{RATE} = 'fast'"]),
        ({NAME: "Nadam"}, [f"{NAME} = 'Nadam'"]),
        ({SIZE: 30}, ["multiple"]),
        ({SOFT: True, MARGIN: 0.2}, [f"{MARGIN} is not searched with these values", "`when`"]),
        ({GAMMA: 0.3}, [f"{GAMMA} = 0.3", "the space sets it to 0.2."]),
        ({RATE: 0.9}, [f"the configuration breaks the constraint {RATE} < 0.5"]),
        ({STEPS: [2], "train.optim.steps": [2]}, ["given twice"]),
    ],
)
def test_what_a_user_may_not_give(tmp_path: Path, pairs: dict[str, Any], parts: list[str]) -> None:
    space = SPACE | {
        STEPS: {"choice": [[40, 70], [2, 3]]},
        GAMMA: {"value": 0.2},
        SIZE: {"quniform": [32, 128, 32]},
        "re_ranking.k1": {"int": [5, 9]},
    }
    found = sweep(tmp_path, pairs, space=space, constraints=[f"{RATE} < 0.5"])
    with pytest.raises(InputError) as caught:
        parse_user_point(found, pairs, "enqueue")
    message = str(caught.value)
    assert message.startswith("enqueue: ") and "\n" not in message
    assert all(part in message for part in parts)
    with pytest.raises(InputError, match=r"sweep.yaml: search.start_from: "):
        initial_points(found)


def test_an_earlier_sweep_that_cannot_help_is_refused(tmp_path: Path) -> None:
    def refusal(start_from: str) -> str:
        with pytest.raises(InputError) as caught:
            initial_points(sweep(tmp_path, start_from))
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}/sweep.yaml: search.start_from: ") and "\n" not in message
        return message

    assert "there is no sweep 'first'" in refusal("first")
    assert "later is this sweep itself" in refusal("later")
    earlier(tmp_path, [({}, 0.5, "stopped"), ({}, 0.5, "failed")])
    assert "first has no full-length trial" in refusal("first")
    earlier(
        tmp_path / "other", [({}, 0.5, "finished")], objective={"metric": "Rank-1"}, storage=str(tmp_path / "runs2")
    )
    with pytest.raises(InputError, match="first has Rank-1 as its objective, this sweep has mAP"):
        initial_points(sweep(tmp_path, "first", storage=str(tmp_path / "runs2")))


def test_configurations_that_train_the_same_model_start_once(tmp_path: Path) -> None:
    momentum = "train.optim.momentum"
    space = {RATE: {"loguniform": [1e-5, 1e-1]}, momentum: {"uniform": [0.5, 0.9]}}
    points = [{RATE: 1e-3, momentum: 0.6}, {RATE: 1e-3, momentum: 0.7}, {momentum: 0.7}]  # Adam has no momentum.
    found, _ = initial_points(make_sweep(tmp_path, space=space, search={"start_from": points}))
    assert [point.parameters[momentum] for point in found] == [0.6]
