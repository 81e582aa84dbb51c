"""Scores of a model on a test set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reid_tune.config.experiment import Experiment
from reid_tune.evaluation.breakdown import CameraPairs, per_identity
from reid_tune.evaluation.distances import DistanceBlocks
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.matches import TopMatches
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Score, scores
from reid_tune.tasks.common.calibration import Calibration
from reid_tune.tasks.common.open_model import ModelFile
from reid_tune.training.data_split import read_evaluation_records
from reid_tune.training.embedding import compute_features
from reid_tune.training.image_sets import EvaluationImages, decode_evaluation_images

__all__ = ["ModelEvaluation", "evaluate_features", "evaluation_features", "reranking_of"]


@dataclass(frozen=True)
class ModelEvaluation:
    """Scores of one model on one test set.

    Attributes:
        plain: Score of the plain distances.
        re_ranked: Score after re-ranking; None where re-ranking is off.
        details: Rows of `per_camera_pair` and `per_identity`, by `plain` and `re_ranked`; empty without details.
        calibration: Decision threshold of the plain distances.
    """

    plain: Score
    re_ranked: Score | None
    details: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def headline(self) -> Score:
        """Score that the spec asks for."""
        return self.re_ranked or self.plain

    def as_dict(self) -> dict[str, Any]:
        """Return both scores with metrics as fractions, intervals, protocol and details, and the calibration."""
        by_kind = {"plain": self.plain, "re_ranked": self.re_ranked}
        reports = {kind: score and score.report() | self.details.get(kind, {}) for kind, score in by_kind.items()}
        return reports | ({"threshold": self.calibration.as_dict()} if self.calibration else {})


def reranking_of(experiment: Experiment) -> ReRanking | None:
    """Return the re-ranking of a spec; None where it is off."""
    section = experiment.re_ranking
    return ReRanking(section.k1, section.k2, section.lambda_value) if section.re_ranking else None


def evaluate_features(
    features: FeatureSet,
    reranking: ReRanking | None,
    top_matches: TopMatches | None = None,
    details: bool = False,
    device: torch.device | str = "cpu",
) -> ModelEvaluation:
    """Score features plain, and re-ranked if a re-ranking is given; the neighbours are computed once.

    Args:
        features: Queries and gallery.
        reranking: Parameters of the re-ranking.
        top_matches: Collector that sees each ranking, the re-ranked one last.
        details: Whether scores of camera pairs and identities are computed as well.
        device: Device of the computation.
    """
    camera_pairs = CameraPairs(features) if details else None

    def observe(blocks: DistanceBlocks) -> DistanceBlocks:
        blocks = top_matches(blocks) if top_matches else blocks
        return camera_pairs(blocks) if camera_pairs else blocks

    results, rows = [], {}
    settings = [None] if reranking is None else [None, reranking]
    for score in scores(features, settings, device, observe):
        results.append(score)
        if camera_pairs:
            kind = "re_ranked" if score.reranking else "plain"
            rows[kind] = {"per_camera_pair": camera_pairs.rows(), "per_identity": per_identity(score)}
    plain, *re_ranked = results
    return ModelEvaluation(plain, re_ranked[0] if re_ranked else None, rows)


def evaluation_features(
    experiment: Experiment, path: Path, query: str | None, gallery: str | None, device: torch.device
) -> tuple[FeatureSet, EvaluationImages]:
    """Return features of the images of two folders, and the images.

    Args:
        experiment: The spec; an ONNX file has its own preprocessing.
        path: A checkpoint or an ONNX file.
        query, gallery: The two folders.
        device: Device of the model.

    Raises:
        InputError: the model, a folder or an image is unusable.
    """
    embedder = ModelFile(path, experiment)(device)
    records = read_evaluation_records(query, gallery, strict=experiment.dataset.strict)
    images = decode_evaluation_images(*records, embedder.image_spec, experiment.dataset.num_workers)
    return compute_features(images, embedder.embed), images
