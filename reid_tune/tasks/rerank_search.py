"""The task `rerank-search`: find the best parameters of the re-ranking for some features."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track

from reid_tune.errors import InputError, error_context
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.intervals import paired_interval
from reid_tune.evaluation.plots import ENDINGS
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.rerank_grid import grid_scores
from reid_tune.evaluation.rerank_plot import rerank_plot
from reid_tune.evaluation.score import Score, score
from reid_tune.files import check_output_file, require_writable
from reid_tune.tasks.common.feature_files import print_warnings, read_feature_file
from reid_tune.training.devices import parse_device

__all__ = ["RerankSearch", "run_rerank_search"]

Number = TypeVar("Number", int, float)

_METRICS = ("mAP", "mINP", "Rank-1")


@dataclass(frozen=True)
class RerankSearch:
    """Scores of a grid of settings.

    Attributes:
        plain: Score without re-ranking.
        scores: Score of each setting, in the order of the grid.
        metric: Metric that decides which setting is best.
    """

    plain: Score
    scores: list[Score]
    metric: str

    @cached_property
    def best(self) -> Score:
        """Score with the highest metric; the first of equal ones."""
        return max(self.scores, key=lambda score: score.as_dict()[self.metric])

    @cached_property
    def gain(self) -> tuple[float, float, float]:
        """Metric of the best setting minus that without re-ranking, and the bounds of its 95 % interval."""
        best, plain = (score.per_query[self.metric] for score in (self.best, self.plain))
        return float((best - plain).mean()), *paired_interval(best, plain, self.plain.query_ids)

    def as_dict(self) -> dict[str, Any]:
        """Return the scores for JSON: fractions, the settings in the order of the grid."""
        gain, low, high = self.gain
        return {
            "metric": self.metric,
            "best": _row(self.best),
            "gain": gain,
            "gain_interval": [low, high],
            "warnings": list(self.plain.warnings),
            "plain": self.plain.as_dict(),
            "settings": [_row(score) for score in self.scores],
        }

    def rows(self, best: int = 10) -> dict[str, dict[str, Any]]:
        """Return metrics by label for a table: without re-ranking, then the best settings."""
        order = sorted(self.scores, key=lambda score: -score.as_dict()[self.metric])
        return {"plain": self.plain.as_dict()} | {_label(score): score.as_dict() for score in order[:best]}

    def __str__(self) -> str:
        gain, low, high = (100 * value for value in self.gain)
        note = "" if low > 0 or high < 0 else ", not a significant difference"
        return (
            f"best of {len(self.scores)}: {_label(self.best)}, {gain:+.1f} {self.metric} ({low:+.1f} .. {high:+.1f}) "
            f"against plain distances{note}; the gain is too high, as it was chosen on these features: check it on "
            "others."
        )

    @property
    def edges(self) -> list[str]:
        """Options of which the best setting has the smallest or largest of several values."""
        grid = [score.reranking for score in self.scores if score.reranking]
        options = {"k1": "--k1", "k2": "--k2", "lambda_value": "--lambda"}
        values = {name: {getattr(setting, name) for setting in grid} for name in options}
        best = {name: getattr(self.best.reranking, name) for name in options}
        return [
            option
            for name, option in options.items()
            if len(values[name]) > 1 and best[name] in (min(values[name]), max(values[name]))
        ]


def run_rerank_search(
    path: Path,
    k1: str,
    k2: str,
    weights: str,
    metric: str,
    picture: Path | None = None,
    device: str = "auto",
) -> RerankSearch:
    """Score every combination of values on the features of a file.

    Args:
        path: The file.
        k1, k2, weights: Values as lists such as `10,20`; the weights are those of the plain distance.
        metric: Metric that decides which setting is best.
        picture: Picture of the scores, .png, .pdf or .svg.
        device: Device of the computation, see `parse_device`.

    Raises:
        InputError: the file, the values, the metric or the picture are unusable.
    """
    if metric not in _METRICS:
        raise InputError(f"--metric {metric} is not one of {', '.join(_METRICS)}.")
    settings = [
        ReRanking(a, b, c)
        for a, b, c in product(
            _parse_values("--k1", k1, int), _parse_values("--k2", k2, int), _parse_values("--lambda", weights, float)
        )
    ]
    torch_device = parse_device(device)
    if picture:
        check_output_file("--picture", picture, ENDINGS)
    features = read_feature_file(path)
    if picture:
        require_writable(picture)
    with error_context(path):
        plain = score(features, device=torch_device)
    print_warnings(plain.warnings)
    search = RerankSearch(plain, _score_settings(features, settings, torch_device), metric)
    if picture:
        values = [result.as_dict()[metric] for result in search.scores]
        rerank_plot(settings, values, metric, plain.as_dict()[metric], picture)
    return search


def _score_settings(features: FeatureSet, settings: list[ReRanking], device: torch.device) -> list[Score]:
    """Return the score of each setting, with a progress bar on stderr if that is a terminal."""
    console = Console(stderr=True)
    scores = grid_scores(features, settings, device)
    return list(
        track(scores, "settings", len(settings), console=console, transient=True, disable=not console.is_terminal)
    )


def _parse_values(option: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    try:
        return sorted({kind(word) for word in text.split(",")})
    except ValueError:
        example = "10,20,30" if kind is int else "0.1,0.3,0.5"
        raise InputError(f"{option} {text!r} is not a list of numbers: give one such as {example}.") from None


def _row(score: Score) -> dict[str, Any]:
    assert score.reranking
    setting = {"k1": score.reranking.k1, "k2": score.reranking.k2, "lambda_value": score.reranking.lambda_value}
    return setting | score.as_dict()


def _label(score: Score) -> str:
    assert score.reranking
    return f"{score.reranking.k1},{score.reranking.k2},{score.reranking.lambda_value:g}"
