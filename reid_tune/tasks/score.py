"""The task `score`: compute the metrics of the features of any model."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reid_tune.errors import error_context
from reid_tune.evaluation.breakdown import CameraPairs, per_identity
from reid_tune.evaluation.rerank import parse_reranking
from reid_tune.evaluation.score import Score, scores
from reid_tune.evaluation.unmatched import describe_distractor_queries, describe_unmatched_queries
from reid_tune.identities import is_junk
from reid_tune.tasks.common.feature_files import print_warnings, read_feature_file
from reid_tune.training.devices import parse_device

__all__ = ["ScoreResult", "run_score"]


@dataclass(frozen=True)
class ScoreResult:
    """Score of a feature file.

    Attributes:
        score: The score.
        junk: Number of gallery rows with a negative identity, which are left out.
        parts: Rows under `per_camera_pair` or `per_identity`, if they were requested.
    """

    score: Score
    junk: int
    parts: dict[str, list[dict[str, Any]]]

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics as fractions, their intervals, the protocol, the junk and the parts, for JSON."""
        return {**self.score.report(), "junk": self.junk, **self.parts}

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the whole score for a table."""
        return {"re-ranked" if self.score.reranking else "plain": self.score.report()}

    def part_rows(self) -> dict[str, dict[str, Any]]:
        """Return the parts, if any, for a separate table."""
        return {label: row for rows in self.parts.values() for label, row in map(_part_row, rows)}


def run_score(
    path: Path, reranking: str | None, by: Literal["camera", "identity"] | None = None, device: str = "auto"
) -> ScoreResult:
    """Score a feature file, and report junk, queries without a match, of identity 0 and degenerate data on stderr.

    Args:
        path: The file.
        reranking: `K1,K2,LAMBDA` to re-rank; None for plain distances.
        by: Parts of the score, see `CameraPairs` and `per_identity`.
        device: Device of the computation, see `parse_device`.

    Raises:
        InputError: the file, the re-ranking or the device is unusable.
    """
    setting, torch_device = parse_reranking(reranking) if reranking else None, parse_device(device)
    features = read_feature_file(path)
    pairs = CameraPairs(features) if by == "camera" else None
    with error_context(path):
        (result,) = scores(features, [setting], torch_device, watch=pairs)
    query = zip(features.query_ids.tolist(), features.query_cameras.tolist(), strict=True)
    gallery = zip(features.gallery_ids.tolist(), features.gallery_cameras.tolist(), strict=True)
    lines = [describe_distractor_queries(features.query_ids.tolist()), describe_unmatched_queries(query, gallery)]
    if junk := int(is_junk(features.gallery_ids).sum()):
        rows = len(features.gallery_ids)
        lines.append(f"{junk:,} of {rows:,} gallery rows are junk (negative identity) and left out")
    for line in filter(None, lines):
        print(line, file=sys.stderr)
    print_warnings(result.warnings)
    parts = {"per_camera_pair": pairs.rows()} if pairs else {"per_identity": per_identity(result)} if by else {}
    return ScoreResult(result, junk, parts)


def _part_row(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the label of a row, and its metrics."""
    keys = [name for name in ("query_camera", "gallery_camera", "identity") if name in row]
    label = ", ".join(f"{name.replace('_', ' ')} {row[name]}" for name in keys)
    metrics = {name: value for name, value in row.items() if isinstance(value, float)}
    return label, metrics | {name: value for name, value in row.items() if name not in keys}
