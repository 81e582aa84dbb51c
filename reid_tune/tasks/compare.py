"""The task `compare`: the features of several models on the same images, query by query."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reid_tune.errors import InputError, error_context
from reid_tune.evaluation.features import FeatureSet, read_features
from reid_tune.evaluation.intervals import paired_interval
from reid_tune.evaluation.plots import ENDINGS, cmc_plot
from reid_tune.evaluation.rerank import parse_reranking
from reid_tune.evaluation.score import Score, score
from reid_tune.files import check_output_file, require_writable
from reid_tune.training.devices import parse_device

__all__ = ["Comparison", "Difference", "run_compare"]

_RANKS = 50  # of the picture
_LABELS = ("query_ids", "query_cameras", "gallery_ids", "gallery_cameras")


@dataclass(frozen=True)
class Difference:
    """How much higher a metric is than the baseline's, a fraction, with its 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        value, low, high = (f"{100 * each:+.1f}" for each in (self.difference, self.low, self.high))
        return f"{value} ({low} .. {high})"

    def as_dict(self) -> dict[str, Any]:
        """The keys difference, interval and differs."""
        return {"difference": self.difference, "interval": [self.low, self.high], "differs": self.differs}


@dataclass(frozen=True)
class Comparison:
    """Scores by file; the first one is the baseline. All are of the same queries and gallery."""

    scores: dict[str, Score]

    @property
    def baseline(self) -> str:
        """The name of the first file."""
        return next(iter(self.scores))

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """The difference of each metric to the baseline, by file."""
        base, *others = self.scores
        return {name: _differences(self.scores[name], self.scores[base]) for name in others}

    def as_dict(self) -> dict[str, Any]:
        """The keys baseline, files and differences."""
        return {
            "baseline": self.baseline,
            "files": {name: score.report() for name, score in self.scores.items()},
            "differences": {
                name: {metric: difference.as_dict() for metric, difference in found.items()}
                for name, found in self.differences.items()
            },
        }

    def rows(self) -> dict[str, dict[str, Any]]:
        """Metrics by label for a table: the files, then the differences in points."""
        return {name: score.report() for name, score in self.scores.items()} | {
            f"{name} - {self.baseline}": {metric: str(difference) for metric, difference in found.items()}
            for name, found in self.differences.items()
        }

    def verdicts(self) -> list[str]:
        """Of each file but the first a sentence about its mAP."""
        return [_verdict(name, self.baseline, found["mAP"]) for name, found in self.differences.items()]


def run_compare(
    paths: Sequence[Path], reranking: str | None, cmc: Path | None = None, device: str = "auto"
) -> Comparison:
    """Compare `.npz` files with the first of them, all re-ranked where `reranking` is `K1,K2,LAMBDA`.

    Args:
        cmc: Picture of all CMC curves, .png, .pdf or .svg.

    Raises:
        InputError: there is one file only, one is unusable or of other images, or the picture is impossible; found
            before any file is scored.
    """
    setting, place = parse_reranking(reranking) if reranking else None, parse_device(device)
    if cmc:
        check_output_file("--cmc", cmc, ENDINGS)
    names = _names(paths)
    _check(paths)
    if cmc:
        require_writable(cmc)
    found = {}
    for name, path in zip(names, paths, strict=True):
        with error_context(path):
            found[name] = score(read_features(path), setting, place)
    comparison = Comparison(found)
    if cmc:
        cmc_plot({name: found.cmc(_RANKS) for name, found in comparison.scores.items()}, cmc)
    return comparison


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the files, with as many of their folders as tell them apart."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    if len(parts) < 2:
        raise InputError("there is one feature file only; give a baseline and at least one other.")
    for place, own in enumerate(parts):
        if own in parts[:place]:
            raise InputError(f"{paths[place]} is given twice; give different files.")
    longest = max(map(len, parts))
    return [
        next(
            str(Path(*own[-count:]))
            for count in range(1, longest + 1)
            if sum(other[-count:] == own[-count:] for other in parts) == 1
        )
        for own in parts
    ]


def _check(paths: Sequence[Path]) -> None:
    """Every file is readable and of the same queries and gallery; one at a time is held in memory."""
    first, *others = paths
    wanted = _labels(read_features(first))
    for path in others:
        for name, labels in _labels(read_features(path)).items():
            if len(labels) != len(wanted[name]):
                fault = f"has {len(labels)} rows, but in {first} it has {len(wanted[name])}"
            elif (differ := labels != wanted[name]).any():
                row = int(differ.argmax())
                fault = f"is {labels[row]} in row {row}, but in {first} it is {wanted[name][row]}"
            else:
                continue
            raise InputError(f"{path}: {name} {fault}; compare features of the same images in the same order.")


def _labels(features: FeatureSet) -> dict[str, np.ndarray]:
    return {name: getattr(features, name) for name in _LABELS}


def _differences(other: Score, base: Score) -> dict[str, Difference]:
    found = {}
    for metric, values in other.per_query.items():
        own = base.per_query[metric]
        interval = paired_interval(values, own, base.query_ids)
        found[metric] = Difference(float(np.mean(values - own)), *interval)
    return found


def _verdict(name: str, baseline: str, found: Difference) -> str:
    if not found.differs:
        return f"{name} is not shown to differ from {baseline}: mAP {found}; the interval contains 0"
    kind = "better" if found.difference > 0 else "worse"
    return f"{name} is {kind} than {baseline}: mAP {found}; the interval excludes 0"
