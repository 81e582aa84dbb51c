"""The task `score`: metrics of the features of any model."""

import sys
from pathlib import Path
from typing import Any, Literal

from reid_tune.evaluation.breakdown import CameraPairs, per_identity
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.rerank import parse_reranking
from reid_tune.evaluation.score import scores
from reid_tune.evaluation.unmatched import unmatched

__all__ = ["run_score"]


def run_score(path: Path, reranking: str | None, by: Literal["camera", "identity"] | None = None) -> dict[str, Any]:
    """Flat metrics of an `.npz` file; re-ranked ones where `reranking` is `K1,K2,LAMBDA`.

    Beside them stand the rows of `by_camera` or `by_identity` where asked for, see `CameraPairs` and `per_identity`.
    Queries without a match are told on stderr.

    Raises:
        InputError: the file or the setting is unusable.
    """
    setting = parse_reranking(reranking) if reranking else None
    features = read_features(path)
    pairs = CameraPairs(features) if by == "camera" else None
    (found,) = scores(features, [setting], watch=pairs)
    query = zip(features.query_ids.tolist(), features.query_cameras.tolist(), strict=True)
    gallery = zip(features.gallery_ids.tolist(), features.gallery_cameras.tolist(), strict=True)
    if line := unmatched(query, gallery):
        print(line, file=sys.stderr)
    rows = {"by_camera": pairs.rows()} if pairs else {"by_identity": per_identity(found)} if by else {}
    return {**found.as_dict(), **rows}
