"""The task `compare`: compare the features of several models on the same images, query by query."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reid_tune.errors import InputError, error_context
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.intervals import paired_interval
from reid_tune.evaluation.plots import ENDINGS, cmc_plot
from reid_tune.evaluation.rerank import parse_reranking
from reid_tune.evaluation.score import Score, score
from reid_tune.files import check_output_file, require_writable
from reid_tune.tasks.common.feature_files import print_warnings, read_feature_file
from reid_tune.training.devices import parse_device

__all__ = ["Comparison", "Difference", "run_compare"]

_RANKS = 50  # Largest rank of the CMC curves in the picture.
_LABELS = ("query_ids", "query_cameras", "gallery_ids", "gallery_cameras")


@dataclass(frozen=True)
class Difference:
    """Difference of a metric to the baseline's, as a fraction.

    Attributes:
        difference: How much higher the metric is than the baseline's.
        low, high: Bounds of the 95 % interval.
    """

    difference: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        value, low, high = (f"{100 * number:+.1f}" for number in (self.difference, self.low, self.high))
        return f"{value} ({low} .. {high})"

    def as_dict(self) -> dict[str, Any]:
        """Return the keys difference, interval and differs."""
        return {"difference": self.difference, "interval": [self.low, self.high], "differs": self.differs}


@dataclass(frozen=True)
class Comparison:
    """Scores of several files on the same queries and gallery, by name; the first one is the baseline."""

    scores: dict[str, Score]

    @property
    def baseline(self) -> str:
        """Name of the first file."""
        return next(iter(self.scores))

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """Difference of each metric to the baseline, by file."""
        base, *others = self.scores
        return {name: _differences(self.scores[name], self.scores[base]) for name in others}

    def as_dict(self) -> dict[str, Any]:
        """Return the keys baseline, files and differences."""
        return {
            "baseline": self.baseline,
            "files": {name: score.report() for name, score in self.scores.items()},
            "differences": {
                name: {metric: difference.as_dict() for metric, difference in differences.items()}
                for name, differences in self.differences.items()
            },
        }

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return metrics by label for a table: the files, then the differences in percentage points."""
        return {name: score.report() for name, score in self.scores.items()} | {
            f"{name} - {self.baseline}": {metric: str(difference) for metric, difference in differences.items()}
            for name, differences in self.differences.items()
        }

    def verdicts(self) -> list[str]:
        """Return a sentence about the mAP of each file except the first."""
        return [_verdict(name, self.baseline, metrics["mAP"]) for name, metrics in self.differences.items()]


def run_compare(
    paths: Sequence[Path], reranking: str | None, cmc: Path | None = None, device: str = "auto"
) -> Comparison:
    """Compare feature files with the first of them.

    Args:
        paths: The files.
        reranking: `K1,K2,LAMBDA` to re-rank all of them; None for plain distances.
        cmc: Picture of all CMC curves, .png, .pdf or .svg.
        device: Device of the computation, see `parse_device`.

    Raises:
        InputError: there is one file only, a file is unusable or of other images, or the picture is impossible; raised
            before any file is scored.
    """
    setting, torch_device = parse_reranking(reranking) if reranking else None, parse_device(device)
    if cmc:
        check_output_file("--cmc", cmc, ENDINGS)
    names = _distinct_names(paths)
    _require_same_images(paths)
    if cmc:
        require_writable(cmc)
    scores = {}
    for name, path in zip(names, paths, strict=True):
        with error_context(path):
            scores[name] = score(read_feature_file(path), setting, torch_device)
        print_warnings(scores[name].warnings, name)
    if cmc:
        cmc_plot({name: score.cmc(_RANKS) for name, score in scores.items()}, cmc)
    return Comparison(scores)


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of the files, with as many of their folders as are needed to distinguish them."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    if len(parts) < 2:
        raise InputError("there is one feature file only; give a baseline and at least one other.")
    for index, path_parts in enumerate(parts):
        if path_parts in parts[:index]:
            raise InputError(f"{paths[index]} is given twice; give different files.")
    longest = max(map(len, parts))
    return [
        next(
            str(Path(*path_parts[-count:]))
            for count in range(1, longest + 1)
            if sum(other[-count:] == path_parts[-count:] for other in parts) == 1
        )
        for path_parts in parts
    ]


def _require_same_images(paths: Sequence[Path]) -> None:
    """Refuse files that are unreadable or of other queries or gallery images; one file at a time is in memory."""
    first, *others = paths
    expected = _labels(read_feature_file(first))
    for path in others:
        for name, labels in _labels(read_feature_file(path)).items():
            if len(labels) != len(expected[name]):
                message = f"has {len(labels)} rows, but in {first} it has {len(expected[name])}"
            elif (differ := labels != expected[name]).any():
                row = int(differ.argmax())
                message = f"is {labels[row]} in row {row}, but in {first} it is {expected[name][row]}"
            else:
                continue
            raise InputError(f"{path}: {name} {message}; compare features of the same images in the same order.")


def _labels(features: FeatureSet) -> dict[str, np.ndarray]:
    return {name: getattr(features, name) for name in _LABELS}


def _differences(other: Score, base: Score) -> dict[str, Difference]:
    differences = {}
    for metric, values in other.per_query.items():
        base_values = base.per_query[metric]
        interval = paired_interval(values, base_values, base.query_ids)
        differences[metric] = Difference(float(np.mean(values - base_values)), *interval)
    return differences


def _verdict(name: str, baseline: str, difference: Difference) -> str:
    if not difference.differs:
        return f"{name} does not differ significantly from {baseline}: mAP {difference}; the interval contains 0"
    kind = "better" if difference.difference > 0 else "worse"
    return f"{name} is {kind} than {baseline}: mAP {difference}; the interval excludes 0"
