"""What Optuna's study is told of ended trials, and what its samplers make of it."""

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from reid_tune.journal.state import trial_run
from reid_tune.search.sampler import suggestion_seed
from reid_tune.search.study import Study
from reid_tune.search_space.load import SweepConfig

from ..helpers.simulated_driver import EPOCHS, make_sweep

NAME, RATE, WIDTH = "train.optim.name", "train.optim.base_lr", "model.feat_dim"
MARGIN, SOFT = "train.optim.triplet_loss_margin", "model.no_margin"
PLAIN: dict[str, Any] = {
    RATE: {"loguniform": [1e-5, 1e-1]},
    MARGIN: {"uniform": [0.1, 0.6]},
    WIDTH: {"quniform": [64, 1024, 64]},
}
CONDITIONAL: dict[str, Any] = PLAIN | {
    NAME: {"choice": ["Adam", "SGD"]},
    "train.optim.momentum": {"uniform": [0.5, 0.9], "when": {NAME: "SGD"}},
    SOFT: {"choice": [True, False]},
    MARGIN: {"uniform": [0.1, 0.6], "when": {SOFT: False}},
}
LIMITS = [f"{MARGIN} < 0.4 or {NAME} == 'Adam'", f"{WIDTH} % 128 == 0"]
TWO = {"objective": [{"metric": "mAP"}, {"metric": "gflops"}, {"metric": "embedding_dim"}]}

CLIFF = -3.0

Outcome = dict[str, Any]
Train = Callable[[Mapping[str, Any]], Outcome]


def study(folder: Path, sampler: str = "tpe", trials: int = 60, seed: int = 1, **values: Any) -> Study:
    return Study(sweep(folder, sampler, trials, seed, **values))


def sweep(folder: Path, sampler: str = "tpe", trials: int = 60, seed: int = 1, **values: Any) -> SweepConfig:
    search = {"sampler": sampler, "seed": seed}
    return make_sweep(folder, **({"space": PLAIN, "search": search, "budget": {"trials": trials}} | values))


def finished(score: float, *costs: float) -> Outcome:
    return {"state": "finished", "value": score, "epochs": {1: score / 2, EPOCHS: score}, "costs": costs}


def stopped(score: float, *costs: float, epoch: int = 1) -> Outcome:
    return {"state": "stopped", "value": score, "epochs": {epoch: score}, "costs": costs}


def failed(failure: str, *costs: float) -> Outcome:
    return {"state": "failed", "value": None, "epochs": {1: 0.25}, "costs": costs, "failure": failure}


def told(found: Study) -> list[optuna.trial.FrozenTrial]:
    return [found.sampler.study.get_trials(deepcopy=False)[number] for number in found.sampler.numbers.values()]


def learn(found: Study, *outcomes: Outcome) -> list[optuna.trial.FrozenTrial]:
    for number, outcome in enumerate(outcomes, 1):
        found.add_trial(trial_run(number), {RATE: 1e-3, MARGIN: 0.3, WIDTH: 64 * number})
        found.tell(trial_run(number), **outcome)
    return told(found)


def suggest(found: Study, train: Train, count: int) -> list[dict[str, Any]]:
    suggested = []
    for number in range(1, count + 1):
        suggested.append(found.ask(trial_run(number), number))
        outcome = train(suggested[-1])
        found.record_costs(trial_run(number), outcome.get("costs", ()))
        found.tell(trial_run(number), **outcome)
    return suggested


OUTCOMES = [finished(0.5), stopped(0.3), failed("non_finite"), failed("out_of_memory"), failed("invalid"), failed("")]


def test_what_becomes_of_the_ends_of_trials(tmp_path: Path) -> None:
    unscored = {**stopped(0.1), "epochs": {}}
    trials = learn(study(tmp_path), *OUTCOMES, finished(math.nan), {**finished(0.1), "value": None}, unscored)
    states = ["COMPLETE", *["PRUNED"] * 3, *["FAIL"] * 5]
    assert [trial.state.name for trial in trials] == states
    assert [trial.intermediate_values for trial in trials[:4]] == [{1: 0.25, EPOCHS: 0.5}, {1: 0.3}, {}, {}]
    assert trials[0].values == [0.5]
    violated = [trial.constraints["trainable"] > 0 for trial in trials[:4]]
    assert violated[3] and not any(violated[:2])


def test_with_several_objectives_costs_are_minimized(tmp_path: Path) -> None:
    found = study(tmp_path, **TWO)
    outcomes = [{**outcome, "costs": (2.0, 64.0)} for outcome in OUTCOMES]
    trials = learn(found, *outcomes)
    assert (trials[0].state.name, trials[0].values) == ("COMPLETE", [0.5, 2.0, 64.0])
    assert all(trial.intermediate_values == {} for trial in trials)
    found.tell(trial_run(0), **finished(0.25, 1.0, 32.0))
    assert found.sampler.study.get_trials(deepcopy=False)[-1].values == [0.25, 1.0, 32.0]
    assert set(found.ask(trial_run(9), 9)) == set(PLAIN)


@pytest.mark.parametrize("values", [{}, TWO], ids=["one", "three"])
def test_tpe_ranks_complete_before_stopped_before_diverged_before_too_large(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    costs = (2.0, 64.0) if values else ()
    ranked = [
        finished(0.01, *costs),
        stopped(0.2, *costs, epoch=9),
        stopped(0.1, *costs, epoch=9),
        stopped(0.9, *costs, epoch=3),
        failed("non_finite", *costs),
        failed("out_of_memory", *costs),
    ]
    order = random.Random(1).sample(range(6), 6)
    trials = learn(found := study(tmp_path, **values), *(ranked[index] for index in order))
    from optuna.samplers._tpe.sampler import _split_trials

    for count in range(1, 6):
        below, above = _split_trials(found.sampler.study, trials, count)
        assert sorted(order[trials.index(trial)] for trial in below) == list(range(count))
        assert len(above) == 6 - count


def too_high(failure: str, best: float) -> Train:
    """Trials fail at the higher half of the rates; the best rate is 10**best."""

    def train(parameters: Mapping[str, Any]) -> Outcome:
        rate = math.log10(parameters[RATE])
        score = 0.5 - 0.05 * abs(rate - best) - 0.1 * abs(parameters[MARGIN] - 0.3)
        return failed(failure) if rate > CLIFF else finished(score)

    return train


def share_of_failures(folder: Path, sampler: str, train: Train, trials: int, seeds: int) -> float:
    """Among the last third of the trials."""
    late = []
    for seed in range(seeds):
        late += suggest(study(folder, sampler, trials, seed), train, trials)[-trials // 3 :]
    return sum(train(parameters)["state"] == "failed" for parameters in late) / len(late)


@pytest.mark.parametrize(("sampler", "trials", "seeds"), [("tpe", 60, 5), ("auto", 15, 3)])
@pytest.mark.parametrize("failure", ["non_finite", "out_of_memory"])
def test_samplers_learn_to_avoid_what_cannot_be_trained(
    tmp_path: Path, failure: str, sampler: str, trials: int, seeds: int
) -> None:
    train = too_high(failure, CLIFF - 0.67)
    learned, at_random = (share_of_failures(tmp_path, kind, train, trials, seeds) for kind in (sampler, "random"))
    assert learned < 0.5 * at_random


@pytest.mark.parametrize("failure", ["non_finite", "out_of_memory"])
def test_where_the_best_is_next_to_what_fails_tpe_does_not_run_into_it(tmp_path: Path, failure: str) -> None:
    learned, ignored = (share_of_failures(tmp_path, "tpe", too_high(kind, CLIFF), 60, 3) for kind in (failure, "lost"))
    assert learned < 0.6 * ignored


def pareto(parameters: Mapping[str, Any]) -> Outcome:
    width = parameters[WIDTH]
    score = 0.5 + width / 4096 - 0.1 * abs(math.log10(parameters[RATE]) + 3)
    return (
        finished(score, float(width), float(width)) if width % 128 else stopped(score / 2, float(width), float(width))
    )


@pytest.mark.parametrize("learning", ["auto", "tpe"])
def test_with_several_objectives_all_of_the_front_is_approached(tmp_path: Path, learning: str) -> None:
    def late(sampler: str) -> list[dict[str, Any]]:
        return [
            parameters
            for seed in range(2)
            for parameters in suggest(study(tmp_path, sampler, 32, seed, **TWO), pareto, 32)[-16:]
        ]

    def distance(found: list[dict[str, Any]]) -> float:
        return sum(abs(math.log10(parameters[RATE]) + 3) for parameters in found) / len(found)

    found = late(learning)
    assert distance(found) < 0.8 * distance(late("random"))
    assert min(each[WIDTH] for each in found) < 300 and max(each[WIDTH] for each in found) > 700


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
@pytest.mark.parametrize("values", [{}, {"space": CONDITIONAL, "constraints": LIMITS}, TWO])
def test_the_same_events_give_the_same_suggestions(tmp_path: Path, sampler: str, values: dict[str, Any]) -> None:
    kinds: list[Callable[..., Outcome]] = [finished, stopped, lambda score, *costs: failed("non_finite", *costs)]
    first, second = (study(tmp_path, sampler, 16, **values) for _ in range(2))
    events: list[tuple[str, dict[str, Any], Outcome]] = []
    for number in range(1, 11):
        run, width = trial_run(number), 64.0 * (number % 5)
        parameters = first.ask(run, number)
        outcome = kinds[number % 3](0.1 + width / 1000, *((width + 1, width + 1) if values is TWO else ()))
        first.record_costs(run, outcome["costs"])
        first.tell(run, **outcome)
        events.append((run, json.loads(json.dumps(parameters)), outcome))
    for run, parameters, outcome in events:
        second.add_trial(run, parameters)
        second.record_costs(run, outcome["costs"])
        second.tell(run, **outcome)
    assert first.ask("trials/0011", 11) == second.ask("trials/0011", 11)


def test_draws_that_share_densities_are_those_of_optuna(tmp_path: Path) -> None:
    """With one group of keys, the suggestion is what a plain sampler of Optuna draws."""
    found = study(tmp_path)
    suggest(found, lambda parameters: finished(parameters[MARGIN]), 30)
    found.add_trial(trial_run(31), {RATE: 1e-3, MARGIN: 0.5, WIDTH: 64})
    names = found.space.conditional_groups()[RATE]
    draft = found.sampler.study.ask()
    sampler = optuna.samplers.TPESampler(seed=suggestion_seed(1, 32), n_startup_trials=10, multivariate=True)
    drawn = sampler.sample_relative(found.sampler.study, found.sampler.study.get_trials()[draft.number], names)
    found.sampler.study.tell(draft, state=optuna.trial.TrialState.FAIL)
    assert found.ask(trial_run(32), 32) == found.space.draw(lambda name, distribution: drawn[name])


def test_a_given_configuration_may_lie_outside_the_ranges(tmp_path: Path) -> None:
    found = study(tmp_path)
    found.add_trial("trials/0001", {RATE: 0.5, MARGIN: 0.3, WIDTH: 64})
    found.tell("trials/0001", **finished(0.9))
    assert found.sampler.study.get_trials() == []
    inside = found.ask("trials/0002", 2)
    assert list(found.sampler.numbers) == ["trials/0002"]
    assert inside == study(tmp_path).ask("trials/0002", 2)


@pytest.mark.parametrize(("state", "known"), [("finished", 1), ("stopped", 0), ("failed", 0)])
def test_trial_0_joins_full_length_only(tmp_path: Path, state: str, known: int) -> None:
    found = study(tmp_path)
    found.tell(trial_run(0), state, 0.5, {1: 0.5}, failure="out_of_memory" if state == "failed" else "")
    assert len(found.sampler.study.get_trials()) == known


def test_a_grid_leaves_out_what_has_been_tried(tmp_path: Path) -> None:
    found = study(tmp_path, "grid", 10, space={WIDTH: {"choice": [64, 128, 192]}, "model.neck": {"value": "bnneck"}})
    assert found.space.base[WIDTH] not in (64, 128, 192)
    given = found.space.complete({WIDTH: 128})
    found.add_trial("trials/0001", given)
    found.add_trial("trials/0002", given | {WIDTH: 32})
    assert [found.ask(trial_run(number), number)[WIDTH] for number in (3, 4)] == [64, 192]
    assert found.ask("trials/0005", 5) is None


SMALL = {WIDTH: {"choice": [64, 128]}, NAME: {"choice": ["Adam", "SGD"]}}


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random", "grid"])
def test_no_configuration_is_suggested_twice_and_a_small_space_is_used_up(tmp_path: Path, sampler: str) -> None:
    found = study(tmp_path, sampler, 30, space=SMALL)
    suggested = []
    for number in range(1, 9):
        parameters = found.ask(trial_run(number), number)
        if parameters is None:
            break
        suggested.append(tuple(parameters.values()))
        found.tell(trial_run(number), **finished(0.1 * number))
    assert sorted(suggested) == [(64, "Adam"), (64, "SGD"), (128, "Adam"), (128, "SGD")]


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random", "grid"])
def test_configurations_that_differ_only_in_keys_without_effect_are_one(tmp_path: Path, sampler: str) -> None:
    space = {NAME: {"choice": ["AdamW", "SGD"]}, "train.optim.momentum": {"choice": [0.5, 0.7, 0.8]}}
    found = study(tmp_path, sampler, 30, space=space)
    suggested = [found.ask(trial_run(number), number) for number in range(1, 6)]
    assert suggested[4] is None, "AdamW has no momentum"
    assert sorted(values[NAME] for values in suggested[:4] if values) == ["AdamW", "SGD", "SGD", "SGD"]


def test_a_good_expensive_choice_gets_its_share(tmp_path: Path) -> None:
    """With two objectives, the front must not end at the most expensive trial."""

    def train(parameters: Mapping[str, Any]) -> Outcome:
        is_wide = parameters[WIDTH] == 1024
        score = (0.8 if is_wide else 0.6) - 0.1 * abs(math.log10(parameters[RATE]) + 3) - 0.1 * parameters[MARGIN]
        return finished(score, 4.5 if is_wide else 1.0)

    values = {"objective": [{"metric": "mAP"}, {"metric": "gflops"}], "space": PLAIN | {WIDTH: {"choice": [64, 1024]}}}
    suggested = suggest(study(tmp_path, "auto", 30, **values), train, 30)
    assert 8 <= sum(parameters[WIDTH] == 1024 for parameters in suggested[6:]) <= 20


def test_running_trials_with_costs_and_a_failed_one_are_enough_for_a_suggestion(tmp_path: Path) -> None:
    found = study(tmp_path, "auto", 16, **TWO)
    for number in range(1, 6):
        found.ask(trial_run(number), number)
        found.record_costs(trial_run(number), (float(number), 64.0))
        found.report(trial_run(number), 1, 0.1 * number)
    found.tell(trial_run(1), **failed("non_finite", 1.0, 64.0))
    assert found.ask(trial_run(6), 6) is not None


def test_a_whole_number_is_the_same_value_as_in_the_spec(tmp_path: Path) -> None:
    found = study(tmp_path, "auto", 30, space={"train.optim.bias_lr_factor": {"int": [1, 3]}})
    assert found.space.base["train.optim.bias_lr_factor"] == 1.0
    suggested = [found.ask(trial_run(number), number) for number in (1, 2, 3)]
    assert sorted(map(str, suggested)) == sorted(
        map(str, [{"train.optim.bias_lr_factor": 2}, {"train.optim.bias_lr_factor": 3}, None])
    )


@pytest.mark.parametrize(("configurations", "trials"), [(2, 3), (9, 5)])
def test_the_budget_has_no_more_trials_than_a_small_space(tmp_path: Path, configurations: int, trials: int) -> None:
    space = {WIDTH: {"choice": [64 * number for number in range(1, configurations + 1)]}}
    assert sweep(tmp_path, "auto", 5, space=space).file.budget.trials == trials


def test_what_the_spec_itself_is_is_not_suggested(tmp_path: Path) -> None:
    found = study(tmp_path, "auto", 30, space={NAME: {"choice": ["Adam", "SGD"]}})
    assert found.space.base[NAME] == "Adam"
    assert [found.ask("trials/0001", 1), found.ask("trials/0002", 2)] == [{NAME: "SGD"}, None]


def test_a_running_trial_teaches_with_its_scores_at_rungs(tmp_path: Path) -> None:
    def next_rates(scores: tuple[float, float]) -> list[float]:
        found = study(tmp_path, "auto", 40)
        suggest(found, lambda parameters: finished(0.1), 8)
        for number, score in enumerate(scores, 9):
            found.add_trial(trial_run(number), {RATE: 10.0 ** -(number - 7), MARGIN: 0.3, WIDTH: 64})
            found.report(trial_run(number), 1, score)
        return [found.ask(trial_run(number), number)[RATE] for number in range(11, 16)]

    assert next_rates((0.9, 0.0)) != next_rates((0.0, 0.9))


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_a_constraint_that_cannot_be_computed_for_the_spec_does_not_end_a_search(tmp_path: Path, sampler: str) -> None:
    found = study(tmp_path, sampler, constraints=[f"1 / ({WIDTH} - 256) != 0"])
    assert found.space.base[WIDTH] == 256
    found.add_trial(trial_run(0), {})
    found.tell(trial_run(0), **finished(0.5))
    assert found.ask(trial_run(1), 1) is not None
