"""The task `score`: metrics of the features of any model."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reid_tune.errors import error_context
from reid_tune.evaluation.breakdown import CameraPairs, per_identity
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.rerank import parse_reranking
from reid_tune.evaluation.score import Score, scores
from reid_tune.evaluation.unmatched import describe_unmatched_queries
from reid_tune.training.devices import parse_device

__all__ = ["ScoreResult", "run_score"]


@dataclass(frozen=True)
class ScoreResult:
    """A score, and the rows of its parts under `per_camera_pair` or `per_identity` where they were asked for."""

    score: Score
    parts: dict[str, list[dict[str, Any]]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the flat metrics as fractions, beside them their intervals, the protocol and the parts."""
        return {**self.score.report(), **self.parts}

    def rows(self) -> dict[str, dict[str, Any]]:
        """For a table: the whole."""
        return {"re-ranked" if self.score.reranking else "plain": self.score.report()}

    def part_rows(self) -> dict[str, dict[str, Any]]:
        """For a table of its own: the parts, if any."""
        return {label: row for rows in self.parts.values() for label, row in map(_part, rows)}


def run_score(
    path: Path, reranking: str | None, by: Literal["camera", "identity"] | None = None, device: str = "auto"
) -> ScoreResult:
    """Score an `.npz` file, re-ranked where `reranking` is `K1,K2,LAMBDA`; see `CameraPairs` and `per_identity`.

    Queries without a match are told on stderr.

    Raises:
        InputError: the file or the setting is unusable.
    """
    setting, place = parse_reranking(reranking) if reranking else None, parse_device(device)
    features = read_features(path)
    pairs = CameraPairs(features) if by == "camera" else None
    with error_context(path):
        (found,) = scores(features, [setting], place, watch=pairs)
    query = zip(features.query_ids.tolist(), features.query_cameras.tolist(), strict=True)
    gallery = zip(features.gallery_ids.tolist(), features.gallery_cameras.tolist(), strict=True)
    if line := describe_unmatched_queries(query, gallery):
        print(line, file=sys.stderr)
    parts = {"per_camera_pair": pairs.rows()} if pairs else {"per_identity": per_identity(found)} if by else {}
    return ScoreResult(found, parts)


def _part(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a row is of, and its metrics."""
    of = [name for name in ("query_camera", "gallery_camera", "identity") if name in row]
    label = ", ".join(f"{name.replace('_', ' ')} {row[name]}" for name in of)
    metrics = {name: value for name, value in row.items() if isinstance(value, float)}
    return label, metrics | {name: value for name, value in row.items() if name not in of}
