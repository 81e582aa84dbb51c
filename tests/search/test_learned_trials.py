"""What a search learns from earlier sweeps."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.journal.events import StageDone
from reid_tune.journal.journal import Journal
from reid_tune.search.asha import NO_RUNGS, Rungs
from reid_tune.search.earlier_trials import earlier_trials
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.learned_trials import LearnedSweep, learned_sweeps
from reid_tune.search.trial_model import ObservedTrial, TrialModel, full_length_points, observe
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.resume import make_header
from reid_tune.sweep.stages.search import TrialSource

from ..helpers.events import driver_started
from ..helpers.simulated_driver import SPEC, drive, make_sweep, outcome
from ..helpers.simulated_search import LEVELS, MARGIN, NAME, RATE

pytestmark = pytest.mark.usefixtures("no_fsync")
SPACE: dict[str, Any] = {RATE: {"loguniform": [1e-4, 1e-2]}, NAME: {"choice": ["Adam", "AdamW"]}}
DATA = "fingerprint"


def peak(experiment: Experiment, epoch: int) -> float:
    distance = np.log10(experiment.train.optim.base_lr) + 2.2
    return float(0.6 - 0.1 * distance**2) * epoch / experiment.train.num_epochs


def sweep(folder: Path, **values: Any) -> SweepConfig:
    search = {"sampler": "auto", "seed": 1, "learn_from": ["first"]} | values.pop("search", {})
    return make_sweep(folder, **({"name": "later", "space": SPACE, "search": search} | values))


def search_first(folder: Path, objective: Any = peak, fingerprint: str = DATA, **values: Any) -> None:
    """Run the earlier sweep."""
    first = sweep(folder, name="first", **({"search": {"sampler": "random"}, "budget": {"trials": 12}} | values))
    with Journal(first.folder) as journal:
        journal.emit(make_header(first))
        journal.emit(driver_started(environment={"data": {"fingerprint": fingerprint}}))
        drive(TrialSource(first, journal, Rungs(LEVELS)), objective)


def search_later(later: SweepConfig, learned: list[LearnedSweep], folder: Path | None = None) -> Journal:
    """Run or continue the later sweep."""
    with Journal(folder or later.folder) as journal:
        if not journal.earlier_events:
            journal.emit(make_header(later))
            result = {"rungs": list(LEVELS), "learned": [earlier.as_dict() for earlier in learned]}
            journal.emit(StageDone(stage="preflight", result=result))
        drive(TrialSource(later, journal, Rungs(LEVELS)), peak)
    return journal


@pytest.mark.parametrize(("fingerprint", "is_same"), [(DATA, True), ("other", False)])
def test_trials_of_the_same_data_and_spec_count_as_they_are(tmp_path: Path, fingerprint: str, is_same: bool) -> None:
    search_first(tmp_path)
    later = sweep(tmp_path)
    (learned,), warnings = learned_sweeps(later, fingerprint)
    assert (learned.name, learned.left_out, warnings) == ("first", 0, [])
    assert [trial["number"] for trial in learned.trials] == list(range(12))
    assert all(trial["is_same"] is is_same for trial in learned.trials)
    assert learned.trials[0]["parameters"] == {RATE: 0.00035, NAME: "Adam"}
    json.dumps(learned.as_dict(), allow_nan=False)
    earlier = earlier_trials(SpaceEncoding(later.space), Rungs(LEVELS), [learned.as_dict()])
    assert (len(earlier.same), len(earlier.sources)) == ((12, 0) if is_same else (0, 1))


def test_another_value_of_a_key_that_is_not_searched_here_is_another_spec(tmp_path: Path) -> None:
    search_first(tmp_path, space=SPACE | {MARGIN: {"choice": [0.3, 0.5]}})
    (learned,), _ = learned_sweeps(sweep(tmp_path), DATA)
    assert {trial["is_same"] for trial in learned.trials} == {True, False}
    assert all(set(trial["parameters"]) == {RATE, NAME} for trial in learned.trials)
    constant = sweep(tmp_path, space=SPACE | {MARGIN: {"value": 0.5}})
    assert [trial["is_same"] for trial in learned_sweeps(constant, DATA)[0][0].trials] == [
        not trial["is_same"] for trial in learned.trials
    ]


def test_the_same_file_with_bundles_is_the_same_sweep(tmp_path: Path) -> None:
    spec = SPEC | {"model": {"backbone": "resnet_50"}}
    bundles = [{"name": "a", "model.backbone": "resnet_50"}, {"name": "b", "model.backbone": "resnet18"}]
    search_first(tmp_path, base=spec, bundle=bundles)
    changed = {"dataset": SPEC["dataset"] | {"num_workers": 3, "val_batch_size": 7}, "re_ranking": {"k1": 9}}
    (learned,), _ = learned_sweeps(sweep(tmp_path, base=spec | changed, bundle=bundles), DATA)
    assert learned.left_out == 0 and all(trial["is_same"] for trial in learned.trials)
    swapped = [{"name": "a", "model.backbone": "resnet18"}, {"name": "b", "model.backbone": "resnet_50"}]
    (renamed,), _ = learned_sweeps(sweep(tmp_path, base=spec, bundle=swapped), DATA)
    backbones = [[trial["parameters"]["model.backbone"] for trial in each.trials] for each in (learned, renamed)]
    assert len(set(backbones[0])) == 2 and backbones[0] == backbones[1]


@pytest.mark.parametrize(
    ("file", "digest", "is_same"),
    [("/b.pth", "a", True), ("/b.pth", "b", False), ("/a.pth", "a", True), ("/a.pth", "b", False)],
)
def test_weights_are_compared_by_their_contents(tmp_path: Path, file: str, digest: str, is_same: bool) -> None:
    search_first(tmp_path, base=SPEC | {"model": {"pretrained_model_path": "/a.pth"}})
    with Journal(tmp_path / "runs" / "first") as journal:
        journal.emit(StageDone(stage="preflight", result={"pretrained": {"/a.pth": "a"}}))
    later = sweep(tmp_path, base=SPEC | {"model": {"pretrained_model_path": file}})
    (learned,), _ = learned_sweeps(later, DATA, {file: digest})
    assert {trial["is_same"] for trial in learned.trials} == {is_same}


def test_configurations_without_a_place_in_the_space_are_left_out_with_their_number(tmp_path: Path) -> None:
    search_first(tmp_path, space=SPACE | {NAME: {"choice": ["Adam", "SGD"]}})
    (learned,), (warning,) = learned_sweeps(sweep(tmp_path), DATA)
    assert 0 < learned.left_out == 12 - len(learned.trials)
    assert warning == (
        f"learn_from: {learned.left_out} of 12 trials of first left out: this space cannot have their values."
    )
    encoding = SpaceEncoding(sweep(tmp_path, space={RATE: {"loguniform": [1e-3, 1e-2]}}).space)
    assert [encoding.has_place({RATE: rate}) for rate in (2e-4, 5e-4, 2e-2, 5e-2)] == [False, True, True, False]


def test_sweeps_that_cannot_help_are_refused(tmp_path: Path) -> None:
    def refusal(**search: Any) -> str:
        with pytest.raises(InputError) as caught:
            learned_sweeps(sweep(tmp_path, search=search), DATA)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}/sweep.yaml: search.learn_from: ") and "\n" not in message
        return message

    assert "there is no sweep 'first'" in refusal()
    assert "later is this sweep itself" in refusal(learn_from="later")
    assert "the sampler tpe learns from no other sweep: use auto" in refusal(sampler="tpe")
    search_first(tmp_path, budget={"trials": 1})
    assert "first has fewer than 2 trials with a score in this space" in refusal()


def test_the_first_suggestion_of_a_search_that_learns_is_near_the_best(tmp_path: Path) -> None:
    search_first(tmp_path)
    later = sweep(tmp_path, budget={"trials": 3})
    trials = search_later(later, learned_sweeps(later, DATA)[0]).state.trials
    assert (trials[2].last("mAP") or 0) > 0.59


def test_a_resumed_search_does_not_need_the_earlier_sweep(tmp_path: Path) -> None:
    search_first(tmp_path)
    later = sweep(tmp_path, budget={"trials": 10})
    learned, _ = learned_sweeps(later, "other")
    whole = search_later(later, learned, tmp_path / "whole")
    short = sweep(tmp_path, budget={"trials": 6})
    search_later(short, learned, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "runs" / "first")
    assert outcome(search_later(later, [], tmp_path / "resumed")) == outcome(whole)


def trials_of(encoding: SpaceEncoding, rates: list[float], scores: list[float]) -> list[ObservedTrial]:
    trials = [observe(encoding, {RATE: rate, NAME: "Adam"}, NO_RUNGS) for rate in rates]
    for trial, score in zip(trials, scores, strict=True):
        trial.scores, trial.is_running = {trial.full_length: score}, False
    return trials


@pytest.mark.parametrize(("slope", "low", "high"), [(1, 0.8, 1.2), (0.5, 0.4, 0.7), (-1, 0, 0), (0, 0, 0.4)])
def test_the_weight_of_a_source_follows_its_agreement(tmp_path: Path, slope: float, low: float, high: float) -> None:
    encoding = SpaceEncoding(sweep(tmp_path).space)
    rates = [float(rate) for rate in np.geomspace(1e-4, 1e-2, 9)]
    scores = [0.5 - 0.1 * (np.log10(rate) + 3) ** 2 - 0.02 * np.log10(rate) for rate in rates]
    source = TrialModel(trials_of(encoding, rates, scores))
    model = TrialModel(trials_of(encoding, rates, [slope * score + 0.1 for score in scores]), [source])
    fade = 1 - 9 / 16
    assert low <= model.weights[0] / fade <= high
    # One source by the formula of the ridge regression, without matrices.
    points = full_length_points(model.best)
    predicted = source.predict(points)[0] - source.predict(points)[0].mean()
    targets = np.array([trial.result for trial in model.best], dtype=float)
    prior = 2 * source.spread**2 + 1e-8
    weight = (np.sum(predicted * (targets - targets.mean())) + prior) / (np.sum(predicted**2) + prior)
    assert model.weights[0] == pytest.approx(fade * max(0, weight))


def test_two_sources_share_the_initial_weight(tmp_path: Path) -> None:
    encoding = SpaceEncoding(sweep(tmp_path).space)
    sources = [TrialModel(trials_of(encoding, [1e-4, 1e-3, 1e-2], [0.1, 0.5, 0.2])) for _ in range(2)]
    model = TrialModel(trials_of(encoding, [1e-3, 1e-3], [0.3, 0.3]), sources)
    assert model.weights == pytest.approx([0.5 * 14 / 16] * 2)


def test_sources_do_not_count_after_many_trials(tmp_path: Path) -> None:
    encoding = SpaceEncoding(sweep(tmp_path).space)
    source = TrialModel(trials_of(encoding, [1e-4, 1e-3, 1e-2], [0.1, 0.5, 0.2]))
    rates = [float(rate) for rate in np.geomspace(1e-4, 1e-2, 16)]
    trials = trials_of(encoding, rates, [0.1 * (number % 3) for number in range(16)])
    points = full_length_points(trials)
    for learning, alone in zip(
        TrialModel(trials, [source]).predict(points), TrialModel(trials).predict(points), strict=True
    ):
        assert np.array_equal(learning, alone)
