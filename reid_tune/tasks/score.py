"""The task `score`: metrics of the features of any model."""

from pathlib import Path
from typing import Any

from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.rerank import parse_reranking
from reid_tune.evaluation.score import score

__all__ = ["run_score"]


def run_score(path: Path, reranking: str | None) -> dict[str, Any]:
    """Flat metrics of an `.npz` file; re-ranked ones where `reranking` is `K1,K2,LAMBDA`.

    Raises:
        InputError: the file or the setting is unusable.
    """
    setting = parse_reranking(reranking) if reranking else None
    return dict(score(read_features(path), setting).as_dict())
