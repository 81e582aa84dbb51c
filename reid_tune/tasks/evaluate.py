"""The task `evaluate`: metrics of a checkpoint or an ONNX file on query and gallery folders."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.errors import InputError
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Score, scores
from reid_tune.files import write_atomic
from reid_tune.spec.experiment import Experiment
from reid_tune.tasks.models import matching_experiment, restore_network
from reid_tune.tasks.references import ONNX, resolve
from reid_tune.training.data import decode_evaluation, evaluation_images, evaluation_records
from reid_tune.training.embed import features_of, network_embed
from reid_tune.training.loop import default_device

__all__ = ["Evaluated", "reranking_of", "run_evaluate", "test_features"]

_PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Evaluated:
    """Scores of one model; `re_ranked` is None where re-ranking is off."""

    plain: Score
    re_ranked: Score | None

    def as_dict(self) -> dict[str, Any]:
        """Both scores as flat metrics, fractions."""
        return {"plain": self.plain.as_dict(), "re_ranked": self.re_ranked.as_dict() if self.re_ranked else None}


def run_evaluate(experiment: Experiment) -> Evaluated:
    """Evaluate `evaluate.checkpoint` and write `metrics.json`, and the CMC picture where asked for.

    Raises:
        InputError: checkpoint, data or spec are unusable.
    """
    section = experiment.evaluate
    if not section.checkpoint:
        raise InputError(
            "evaluate.checkpoint is not set: give a checkpoint, an .onnx file, models:/NAME@ALIAS or sweep:NAME."
        )
    picture = section.output_cmc_curve_plot
    if picture and Path(picture).suffix.lower() not in _PICTURES:
        raise InputError(f"evaluate.output_cmc_curve_plot = {picture!r}: the name must end in .png, .pdf or .svg.")
    path = resolve(section.checkpoint, ONNX)
    features = test_features(
        experiment,
        path,
        section.query_dataset or experiment.dataset.query_dataset_dir,
        section.test_dataset or experiment.dataset.test_dataset_dir,
    )
    evaluated = evaluate_features(features, reranking_of(experiment))
    write_atomic(experiment.task_dir("evaluate") / "metrics.json", json.dumps(evaluated.as_dict(), indent=2) + "\n")
    if picture:
        plot_cmc(evaluated, Path(picture))
    return evaluated


def reranking_of(experiment: Experiment) -> ReRanking | None:
    """The re-ranking that a spec asks for."""
    section = experiment.re_ranking
    return ReRanking(section.k1, section.k2, section.lambda_value) if section.re_ranking else None


def evaluate_features(features: FeatureSet, reranking: ReRanking | None) -> Evaluated:
    """Score plain, and re-ranked where given; the neighbours are found once."""
    settings = [None] if reranking is None else [None, reranking]
    plain, *re_ranked = scores(features, settings)
    return Evaluated(plain, re_ranked[0] if re_ranked else None)


def test_features(experiment: Experiment, path: Path, query: str | None, gallery: str | None) -> FeatureSet:
    """Features of the images of two folders by a checkpoint or an ONNX file, which brings its own preprocessing."""
    records = evaluation_records(query, gallery)
    if path.suffix == ".onnx":
        from reid_tune.deploy.onnx_model import OnnxModel

        model = OnnxModel(path)
        images = decode_evaluation(
            *records, model.height, model.width, model.interpolation, experiment.dataset.num_workers
        )
        return features_of(images, lambda batch: model.embed(batch, batch_size=experiment.dataset.val_batch_size))
    checkpoint = load_checkpoint(path)
    experiment = matching_experiment(experiment, checkpoint, path)
    network = restore_network(checkpoint, experiment, path, default_device(experiment))
    return features_of(evaluation_images(experiment, *records), network_embed(network, experiment))


def plot_cmc(evaluated: Evaluated, path: Path) -> None:
    """Draw the CMC curves of both scores."""
    from reid_tune.evaluation.plots import cmc_plot

    curves: Mapping[str, Any] = {"plain": evaluated.plain.cmc} | (
        {"re-ranked": evaluated.re_ranked.cmc} if evaluated.re_ranked else {}
    )
    cmc_plot(curves, path)
