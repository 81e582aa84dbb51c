"""The task `rerank-search`: which setting of the re-ranking suits some features best."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from reid_tune.errors import InputError, error_context
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.intervals import paired_interval
from reid_tune.evaluation.plots import ENDINGS
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.rerank_grid import grid_scores
from reid_tune.evaluation.rerank_plot import rerank_plot
from reid_tune.evaluation.score import Score, score
from reid_tune.files import check_output_file, require_writable
from reid_tune.training.devices import parse_device

__all__ = ["RerankSearch", "run_rerank_search"]

Number = TypeVar("Number", int, float)

_METRICS = ("mAP", "mINP", "Rank-1")


@dataclass(frozen=True)
class RerankSearch:
    """The scores of a grid of settings; `metric` decides which is best."""

    plain: Score
    found: list[Score]
    metric: str

    @cached_property
    def best(self) -> Score:
        """The score with the highest metric; of equal ones the first."""
        return max(self.found, key=lambda found: found.as_dict()[self.metric])

    @cached_property
    def gain(self) -> tuple[float, float, float]:
        """The metric of the best setting minus that without re-ranking, and the 95 % interval."""
        ours, plain = (found.per_query[self.metric] for found in (self.best, self.plain))
        return float((ours - plain).mean()), *paired_interval(ours, plain, self.plain.query_ids)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: fractions, the settings in the order of the grid."""
        gain, low, high = self.gain
        return {
            "metric": self.metric,
            "best": _row(self.best),
            "gain": gain,
            "gain_interval": [low, high],
            "plain": self.plain.as_dict(),
            "settings": [_row(found) for found in self.found],
        }

    def rows(self, best: int = 10) -> dict[str, dict[str, Any]]:
        """For a table: without re-ranking, then the best settings."""
        order = sorted(self.found, key=lambda found: -found.as_dict()[self.metric])
        return {"plain": self.plain.as_dict()} | {_name(found): found.as_dict() for found in order[:best]}

    def __str__(self) -> str:
        gain, low, high = (100 * value for value in self.gain)
        sure = "" if low > 0 or high < 0 else ", not shown to differ"
        return (
            f"best of {len(self.found)}: {_name(self.best)}, {gain:+.1f} {self.metric} ({low:+.1f} .. {high:+.1f}) "
            f"against plain distances{sure}; chosen on these features it is flattered: prove it on others."
        )

    @property
    def edges(self) -> list[str]:
        """The values of which the best setting has the first or the last, where there are several."""
        grid = [found.reranking for found in self.found if found.reranking]
        named = {"k1": "--k1", "k2": "--k2", "lambda_value": "--lambda"}
        values = {option: {getattr(setting, name) for setting in grid} for name, option in named.items()}
        best = {option: getattr(self.best.reranking, name) for name, option in named.items()}
        return [o for o, seen in values.items() if len(seen) > 1 and best[o] in (min(seen), max(seen))]


def run_rerank_search(
    path: Path,
    k1: str,
    k2: str,
    weights: str,
    metric: str,
    picture: Path | None = None,
    device: str = "auto",
) -> RerankSearch:
    """Score every combination of values, given as lists such as `10,20`, on the features of an `.npz` file.

    Raises:
        InputError: file, values, metric or picture are unusable, which is found before the work.
    """
    if metric not in _METRICS:
        raise InputError(f"--metric {metric} is none of {', '.join(_METRICS)}.")
    settings = [
        ReRanking(a, b, c)
        for a, b, c in product(_values("--k1", k1, int), _values("--k2", k2, int), _values("--lambda", weights, float))
    ]
    place = parse_device(device)
    if picture:
        check_output_file("--picture", picture, ENDINGS)
    features = read_features(path)
    if picture:
        require_writable(picture)
    with error_context(path):
        plain = score(features, device=place)
    console = Console(stderr=True)
    scores = grid_scores(features, settings, place)
    shown = track(scores, "settings", len(settings), console=console, transient=True, disable=not console.is_terminal)
    search = RerankSearch(plain, list(shown), metric)
    if picture:
        values = [found.as_dict()[metric] for found in search.found]
        rerank_plot(settings, values, metric, plain.as_dict()[metric], picture)
    return search


def _values(option: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    try:
        return sorted({kind(word) for word in text.split(",")})
    except ValueError:
        example = "10,20,30" if kind is int else "0.1,0.3,0.5"
        raise InputError(f"{option} {text!r} is no list of numbers: give one such as {example}.") from None


def _row(found: Score) -> dict[str, Any]:
    assert found.reranking
    setting = {"k1": found.reranking.k1, "k2": found.reranking.k2, "lambda_value": found.reranking.lambda_value}
    return setting | found.as_dict()


def _name(found: Score) -> str:
    assert found.reranking
    return f"{found.reranking.k1},{found.reranking.k2},{found.reranking.lambda_value:g}"
