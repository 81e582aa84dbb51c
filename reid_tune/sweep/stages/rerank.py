"""Rerank: choose (k1, k2, lambda) of each finalist on its validation splits of the stage `confirm`."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import mean_difference
from reid_tune.evaluation.distances import deterministic_algorithms
from reid_tune.evaluation.features import FeatureSet, read_features
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.rerank_grid import grid_scores
from reid_tune.evaluation.score import Score, score
from reid_tune.execution.fixed_runs import features_file
from reid_tune.execution.stage_task import scoring_device
from reid_tune.journal.journal import Journal
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.refit import find_finalists

__all__ = ["VALUES_PER_RANGE", "best_setting", "choose_settings", "chosen_setting", "list_settings"]

# Values of each range that are compared, including both ends.
VALUES_PER_RANGE = 6


def list_settings(sweep: SweepConfig) -> list[ReRanking]:
    """Return the settings to compare, none if the file searches no re-ranking.

    Raises:
        InputError: a value is invalid, or no setting satisfies the constraints.
    """
    if not sweep.re_ranking.parameters:
        return []
    section = sweep.experiment.re_ranking
    spec_setting = {"k1": section.k1, "k2": section.k2, "lambda_value": section.lambda_value}
    settings = {
        ReRanking(**spec_setting | {key.removeprefix("re_ranking."): value for key, value in configuration.items()})
        for configuration in sweep.re_ranking.spaced_configurations(VALUES_PER_RANGE)
    }
    if not settings:
        texts = " and ".join(constraint.text for constraint in sweep.re_ranking.constraints)
        raise InputError(
            f"{sweep.source}: no setting of the re-ranking satisfies {texts}: loosen it or widen the ranges."
        )
    return sorted(settings, key=lambda setting: (setting.k1, setting.k2, setting.lambda_value))


def choose_settings(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """Choose for each finalist the setting with the highest mean mAP over its validation splits.

    Returns:
        Result of the stage, as plain data; empty if the file searches no re-ranking.
    """
    settings = list_settings(sweep)
    if not settings:
        return {}
    runs = {row["number"]: row["runs"] for row in journal.state.stages["confirm"]["trials"]}
    has_common_images = sweep.experiment.dataset.validation != "holdout"
    result: dict[str, Any] = {"settings": len(settings)}
    for name, trial in find_finalists(journal).items():
        files = [features_file(journal.folder, run) for run in runs[trial.number]]
        with deterministic_algorithms(sweep.experiment.train.deterministic):
            result[name] = best_setting([read_features(file) for file in files], settings, scoring_device(sweep))
        if has_common_images:  # No repeat has images that did not choose the setting.
            result[name]["gain"] = None
    return result


def chosen_setting(journal: Journal, name: str) -> ReRanking | None:
    """Return the setting that was chosen for a finalist, None if no re-ranking was searched."""
    result = journal.state.stages.get("rerank", {}).get(name)
    return ReRanking(**result["setting"]) if result else None


def best_setting(splits: Sequence[FeatureSet], settings: Sequence[ReRanking], device: torch.device) -> dict[str, Any]:
    """Return the setting with the best mean mAP over the validation splits, that mean, and the one without re-ranking.

    The best of many settings is too good on the splits that chose it. `gain` is therefore leave-one-repeat-out: on each
    split it is that of the setting which is the best on the other splits. It is None with one split.
    """
    plain = [score(features, device=device) for features in splits]
    best: tuple[float, ReRanking] | None = None
    # For each split the best mean over the other splits, and the score on this one of the setting that has it.
    left_out: dict[int, tuple[float, Score]] = {}
    # Each grid yields the scores of one split, setting after setting.
    grids = [grid_scores(features, settings, device) for features in splits]
    for setting, *scores in zip(settings, *grids, strict=True):
        values = [result.mAP for result in scores]
        if best is None or mean(values) > best[0]:
            best = mean(values), setting
        for index, result in enumerate(scores if len(scores) > 1 else ()):
            others = mean(values[:index] + values[index + 1 :])
            if index not in left_out or others > left_out[index][0]:
                left_out[index] = others, result
    assert best is not None
    value, setting = best
    gains = [
        (result.average_precision - plain[index].average_precision, result.query_ids)
        for index, (_, result) in left_out.items()
    ]
    return {
        "setting": {"k1": setting.k1, "k2": setting.k2, "lambda_value": setting.lambda_value},
        "mAP": value,
        "plain": mean(result.mAP for result in plain),
        "gain": mean_difference(gains).as_dict() if gains else None,
    }
