"""Re-rank: (k1, k2, lambda) of each finalist, chosen once on its hold-outs of the stage `confirm`."""

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
from reid_tune.journal.state import confirm_run
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.refit import find_finalists

__all__ = ["VALUES_PER_RANGE", "choose_settings", "list_settings", "chosen_setting"]

# Of each range, both ends among them.
VALUES_PER_RANGE = 6


def list_settings(sweep: SweepConfig) -> list[ReRanking]:
    """The settings that are compared; none where the file searches no re-ranking.

    Raises:
        InputError: a range holds what is no setting, or no setting satisfies the constraints.
    """
    section = sweep.experiment.re_ranking
    own = {"k1": section.k1, "k2": section.k2, "lambda_value": section.lambda_value}
    if not sweep.re_ranking.parameters:
        return []
    found = {
        ReRanking(**own | {key.removeprefix("re_ranking."): value for key, value in configuration.items()})
        for configuration in sweep.re_ranking.spaced_configurations(VALUES_PER_RANGE)
    }
    if not found:
        texts = " and ".join(constraint.text for constraint in sweep.re_ranking.constraints)
        raise InputError(
            f"{sweep.source}: no setting of the re-ranking satisfies {texts}: loosen it or widen the ranges."
        )
    return sorted(found, key=lambda setting: (setting.k1, setting.k2, setting.lambda_value))


def choose_settings(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """By finalist the setting with the highest mean of the mAPs on its hold-outs; empty without a search."""
    tried = list_settings(sweep)
    if not tried:
        return {}
    repeats = range(1, sweep.file.confirm.seeds + 1)
    result: dict[str, Any] = {"settings": len(tried)}
    for name, trial in find_finalists(journal).items():
        files = [features_file(journal.folder, confirm_run(trial.number, repeat)) for repeat in repeats]
        with deterministic_algorithms(sweep.experiment.train.deterministic):
            result[name] = _best([read_features(file) for file in files], tried, scoring_device(sweep))
    return result


def chosen_setting(journal: Journal, name: str) -> ReRanking | None:
    """The setting of a finalist; None where none was searched."""
    found = journal.state.stages.get("rerank", {}).get(name)
    return ReRanking(**found["setting"]) if found else None


def _best(hold_outs: Sequence[FeatureSet], tried: Sequence[ReRanking], device: torch.device) -> dict[str, Any]:
    plain = [score(features, device=device) for features in hold_outs]
    best: tuple[float, ReRanking, list[Score]] | None = None
    for setting, *found in zip(tried, *(grid_scores(features, tried, device) for features in hold_outs), strict=True):
        value = mean(each.mAP for each in found)
        if best is None or value > best[0]:
            best = value, setting, found
    assert best is not None
    value, setting, found = best
    gains = [
        (own.average_precision - base.average_precision, own.query_ids) for own, base in zip(found, plain, strict=True)
    ]
    return {
        "setting": {"k1": setting.k1, "k2": setting.k2, "lambda_value": setting.lambda_value},
        "mAP": value,
        "plain": mean(each.mAP for each in plain),
        "gain": mean_difference(gains).as_dict(),
    }
