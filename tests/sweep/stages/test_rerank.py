from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from reid_tune.config.load import with_parameters
from reid_tune.errors import InputError
from reid_tune.evaluation import rerank_grid as evaluation_grid
from reid_tune.evaluation import score as evaluation_score
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Retrieval, score
from reid_tune.execution.fixed_runs import features_file
from reid_tune.journal.events import StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import confirm_run
from reid_tune.sweep.stages import rerank
from reid_tune.sweep.stages.confirm import RepeatLimit, choose_winner, confirm_sources
from reid_tune.sweep.stages.rerank import best_setting, choose_settings, chosen_setting, list_settings
from reid_tune.training.devices import default_device

from ...helpers.searched_sweep import journal_with
from ...helpers.simulated_driver import SPACE, SPEC, draw_features, drive, make_sweep

pytestmark = pytest.mark.usefixtures("no_fsync")

RERANKED = {"re_ranking.k1": {"int": [3, 5]}, "re_ranking.lambda_value": {"uniform": [0.0, 0.5]}}


def confirmed(folder: Path, repeats: int = 2, **values: object) -> tuple[object, Journal]:
    sweep = make_sweep(folder, confirm={"candidates": 1, "repeats": repeats}, **values)
    journal = journal_with(folder / "x", sweep, [("finished", 0.1), ("finished", 0.4)])
    for source in confirm_sources(sweep, journal, RepeatLimit(journal)):
        drive(source)
    journal.emit(StageDone(stage="confirm", result=choose_winner(sweep, journal)))
    return sweep, journal


def test_settings_span_the_ranges_and_keep_the_rest_of_the_spec(tmp_path: Path) -> None:
    found = list_settings(make_sweep(tmp_path, space=SPACE | RERANKED))
    assert [(each.k1, each.k2) for each in found] == [(k1, 6) for k1 in (3, 4, 5) for _ in range(6)]
    assert [each.lambda_value for each in found[:6]] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert list_settings(make_sweep(tmp_path)) == []


def test_constraints_hold_for_settings(tmp_path: Path) -> None:
    space = SPACE | {"re_ranking.k1": {"choice": [2, 8]}, "re_ranking.k2": {"choice": [1, 4]}}
    found = list_settings(make_sweep(tmp_path, space=space, constraints=["re_ranking.k2 < re_ranking.k1"]))
    assert [(each.k1, each.k2) for each in found] == [(2, 1), (8, 1), (8, 4)]
    with pytest.raises(InputError, match="no setting of the re-ranking satisfies re_ranking.k2 > 9"):
        list_settings(make_sweep(tmp_path, space=space, constraints=["re_ranking.k2 > 9"]))


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lambda_value is 1.5"):
        list_settings(make_sweep(tmp_path, space=SPACE | {"re_ranking.lambda_value": {"choice": [0.5, 1.5]}}))


def test_the_choice_is_the_best_mean_over_the_validation_splits_of_each_finalist(tmp_path: Path) -> None:
    sweep, journal = confirmed(tmp_path, space=SPACE | RERANKED)
    result = choose_settings(sweep, journal)  # type: ignore[arg-type]
    winner = journal.state.stages["confirm"]["winner"]
    splits = [read_features(features_file(journal.folder, confirm_run(winner, repeat))) for repeat in (1, 2)]

    def mean_of(setting: ReRanking | None) -> float:
        return sum(score(features, setting, default_device()).mAP for features in splits) / 2

    tried = list_settings(sweep)  # type: ignore[arg-type]
    values = [mean_of(setting) for setting in tried]
    assert result["settings"] == len(tried)
    assert result["winner"]["mAP"] == pytest.approx(max(values))
    best = tried[[round(value, 9) for value in values].index(round(max(values), 9))]
    assert result["winner"]["setting"] == {"k1": best.k1, "k2": best.k2, "lambda_value": best.lambda_value}
    assert result["winner"]["plain"] == pytest.approx(mean_of(None))
    journal.emit(StageDone(stage="rerank", result=result))
    assert chosen_setting(journal, "winner") == best


def test_the_gain_on_each_validation_split_is_that_of_the_setting_which_the_others_choose(tmp_path: Path) -> None:
    experiment = make_sweep(tmp_path).experiment
    splits = [
        draw_features(with_parameters(experiment, {"dataset.validation_seed": seed, "train.seed": seed}, "x"))
        for seed in range(3)
    ]
    settings = [ReRanking(k1, 2, weight) for k1 in (3, 5) for weight in (0.0, 0.5, 0.9)]
    values = [[score(features, setting).mAP for setting in settings] for features in splits]
    gains = []
    for number, features in enumerate(splits):
        others = [mean(values[other][index] for other in range(3) if other != number) for index in range(6)]
        gains.append(values[number][others.index(max(others))] - score(features).mAP)
    result = best_setting(splits, settings, torch.device("cpu"))
    assert result["gain"]["mean"] == pytest.approx(mean(gains)) and result["gain"]["repeats"] == 3
    assert result["gain"]["low"] < result["gain"]["mean"] < result["mAP"] - result["plain"], "the best is too good"


@pytest.mark.parametrize(("repeats", "validation"), [(1, "holdout"), (3, "DIR")])
def test_without_images_that_did_not_choose_the_setting_there_is_no_gain(
    tmp_path: Path, repeats: int, validation: str
) -> None:
    spec = SPEC | {"dataset": SPEC["dataset"] | {"validation": validation}}
    sweep, journal = confirmed(tmp_path, repeats, base=spec, space=SPACE | RERANKED)
    result = choose_settings(sweep, journal)["winner"]  # type: ignore[arg-type]
    assert result["gain"] is None and result["mAP"] > 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_scores_are_computed_on_the_default_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    device, seen = torch.device("cpu", 0), []  # unlike torch.device("cpu")

    class Ranked(Retrieval):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            seen.append((arguments[2], torch.are_deterministic_algorithms_enabled()))

    monkeypatch.setattr(rerank, "scoring_device", lambda _: device)
    for module in (evaluation_grid, evaluation_score):
        monkeypatch.setattr(module, "Retrieval", Ranked)
    spec = SPEC | {"train": SPEC["train"] | {"deterministic": deterministic}}
    sweep, journal = confirmed(tmp_path, base=spec, space=SPACE | RERANKED)
    seen.clear()
    choose_settings(sweep, journal)  # type: ignore[arg-type]
    assert seen == [(device, deterministic)] * 8, "two finalists, two validation splits, without and with re-ranking"


def test_without_ranges_nothing_is_chosen(tmp_path: Path) -> None:
    sweep, journal = confirmed(tmp_path)
    assert choose_settings(sweep, journal) == {}  # type: ignore[arg-type]
    journal.emit(StageDone(stage="rerank", result={}))
    assert chosen_setting(journal, "winner") is None
