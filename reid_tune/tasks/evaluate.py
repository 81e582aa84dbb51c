"""The task `evaluate`: metrics of checkpoints or ONNX files on query and gallery folders."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from reid_tune.config.experiment import Experiment
from reid_tune.data.image_spec import ImageSpec
from reid_tune.errors import InputError
from reid_tune.evaluation.breakdown import CameraPairs, per_identity
from reid_tune.evaluation.distances import DistanceBlocks, deterministic_algorithms
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.matches import TopMatches
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Score, scores
from reid_tune.files import write_atomic
from reid_tune.tasks.common.calibration import Calibration, calibrate
from reid_tune.tasks.common.evaluation_pictures import Pictures
from reid_tune.tasks.common.evaluation_sets import EvaluationSet, evaluation_sets
from reid_tune.tasks.common.open_model import ONNX, ModelFile, resolve_models
from reid_tune.tasks.common.status_log import StatusLog, kpi, logged
from reid_tune.tasks.train import describe_run
from reid_tune.training.data_split import read_evaluation_records
from reid_tune.training.devices import task_devices
from reid_tune.training.embedding import Embedder, ModelOpener, compute_features
from reid_tune.training.embedding_pool import open_embedding_pool
from reid_tune.training.image_sets import EvaluationImages, decode_evaluation_images

__all__ = ["ModelEvaluation", "Evaluation", "evaluate_features", "reranking_of", "run_evaluate", "evaluation_features"]

_SELECTED = "note: a checkpoint that is chosen by this table is selected on test, and its score is too good"


@dataclass(frozen=True)
class ModelEvaluation:
    """Scores of one model on one test set; `re_ranked` is None where re-ranking is off.

    `details` has the rows of `per_camera_pair` and `per_identity` of each score that is broken down.
    """

    plain: Score
    re_ranked: Score | None
    details: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    calibration: Calibration | None = None  # of the plain distances

    @property
    def headline(self) -> Score:
        """The score that the spec asks for."""
        return self.re_ranked or self.plain

    def as_dict(self) -> dict[str, Any]:
        """Both scores, each with its metrics as fractions, intervals, protocol and details, and the calibration."""
        found = {"plain": self.plain, "re_ranked": self.re_ranked}
        reports = {kind: score and score.report() | self.details.get(kind, {}) for kind, score in found.items()}
        return reports | ({"threshold": self.calibration.as_dict()} if self.calibration else {})


@dataclass(frozen=True)
class Evaluation:
    """All scores by model and test set; the spec's own test set has an empty name."""

    scores: dict[str, dict[str, ModelEvaluation]]
    folder: bool  # whether a folder of checkpoints was given

    def as_dict(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        models = {}
        for model, tests in self.scores.items():
            own, *extra = ((test, found.as_dict()) for test, found in tests.items())
            models[model] = own[1] | ({"extra_tests": dict(extra)} if extra else {})
        return {"checkpoints": models, "selected_on": "test"} if self.folder else next(iter(models.values()))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Metrics by label for a table: the spec's own test set first, in it the plain scores before the others."""
        tests = dict.fromkeys(test for found in self.scores.values() for test in found)
        return {
            ", ".join(filter(None, (model if self.folder else "", test, kind.replace("_", "-")))): score.report()
            for test in tests
            for kind in ("plain", "re_ranked")
            for model, found in self.scores.items()
            if (score := getattr(found[test], kind))
        }


def run_evaluate(experiment: Experiment) -> Evaluation:
    """Evaluate `evaluate.checkpoint`, one or a folder of them; write `metrics.json`, and the pictures asked for.

    Raises:
        InputError: checkpoints, data or spec are unusable, which is found before any image is read.
        RunFailedError: a worker died.
    """
    directory = experiment.task_dir("evaluate")
    with logged(directory, "evaluate") as log:
        job = _Job(experiment)
        for line in job.lines:
            print(line, file=sys.stderr)
        with open_embedding_pool(job.devices) as load:
            for model in job.models:
                load(model)
            job.pictures.require_writable()
            write_atomic(directory / "experiment.yaml", experiment.to_yaml())
            log.write("STARTED", "evaluate started")
            evaluation = Evaluation(job.scores(load, log), job.folder)
        write_atomic(directory / "metrics.json", json.dumps(evaluation.as_dict(), indent=2) + "\n")
        if not job.folder:
            own = next(iter(evaluation.scores.values()))[""]
            job.pictures.draw(own.plain, own.re_ranked, own.calibration)
        return evaluation


class _Job:
    """All that an evaluation needs, found and checked, but for the content of models and images."""

    def __init__(self, experiment: Experiment) -> None:
        checkpoint = experiment.evaluate.checkpoint
        if not checkpoint:
            raise InputError(
                "evaluate.checkpoint is not set: give a checkpoint, a folder of them, an .onnx file, "
                "models:/NAME@ALIAS or sweep:NAME."
            )
        self.experiment = experiment
        self.pictures = Pictures(experiment)
        self.folder = Path(checkpoint).is_dir()
        if self.folder and self.pictures.wanted:
            raise InputError(
                f"{self.pictures.wanted[0]} is the picture of one model, but evaluate.checkpoint = {checkpoint!r} is a "
                "folder: leave the picture out or name a file."
            )
        self.models = [ModelFile(path, experiment) for path in resolve_models(checkpoint, ONNX)]
        self.tests = evaluation_sets(experiment)
        self.devices = task_devices(experiment, "evaluate")

    @property
    def lines(self) -> list[str]:
        """What the user should know beforehand."""
        found = [
            line
            for test in self.tests
            for line in (*test.describe_unparsed_names(), *test.describe_unmatched_queries())
        ]
        return [*found, *([_SELECTED] if self.folder else []), describe_run(self.experiment, "evaluate", self.devices)]

    def scores(self, load: Callable[[ModelOpener], Embedder], log: StatusLog) -> dict[str, dict[str, ModelEvaluation]]:
        """Scores by model and test set; the images of one set are decoded once for all models and held meanwhile."""
        found: dict[str, dict[str, ModelEvaluation]] = {model.path.name: {} for model in self.models}
        for test in self.tests:
            decoded: tuple[ImageSpec, EvaluationImages] | None = None
            for model in self.models:
                embedder = load(model)
                if decoded is None or decoded[0] != embedder.image_spec:
                    decoded = embedder.image_spec, test.decode(embedder.image_spec, self.experiment.dataset.num_workers)
                evaluated = self._evaluate(model.path.name, test, decoded[1], embedder)
                found[model.path.name][test.name] = evaluated
                message = f"{model.path.name} on {test.name or 'the test folders'}: {evaluated.headline.protocol}"
                log.write("RUNNING", message, kpi=kpi(evaluated.headline.as_dict()))
        return found

    def _evaluate(
        self, model: str, test: EvaluationSet, images: EvaluationImages, embedder: Embedder
    ) -> ModelEvaluation:
        features = compute_features(images, embedder.embed)
        watch = None if test.name else self.pictures.watch(features)
        spec, device = self.experiment, self.devices[0]
        with deterministic_algorithms(spec.train.deterministic):
            evaluated = evaluate_features(features, reranking_of(spec), watch, spec.evaluate.details, device)
        if watch:
            self.pictures.take(images, watch, evaluated.headline)
        data = {"checkpoint": model, "query_dataset": str(test.query.path), "test_dataset": str(test.gallery.path)}
        calibration = calibrate(features, spec.evaluate.fmr, data, device=device)
        if isinstance(calibration.threshold, InputError):
            print(
                f"note: {model} on {test.query.path} has no threshold for evaluate.fmr: {calibration.threshold}",
                file=sys.stderr,
            )
        return replace(evaluated, calibration=calibration)


def reranking_of(experiment: Experiment) -> ReRanking | None:
    """The re-ranking that a spec asks for."""
    section = experiment.re_ranking
    return ReRanking(section.k1, section.k2, section.lambda_value) if section.re_ranking else None


def evaluate_features(
    features: FeatureSet,
    reranking: ReRanking | None,
    watch: TopMatches | None = None,
    details: bool = False,
    device: torch.device | str = "cpu",
) -> ModelEvaluation:
    """Score plain, and re-ranked where given; the neighbours are found once; see `scores` for `watch`."""
    pairs = CameraPairs(features) if details else None

    def watched(blocks: DistanceBlocks) -> DistanceBlocks:
        blocks = watch(blocks) if watch else blocks
        return pairs(blocks) if pairs else blocks

    found, rows = [], {}
    settings = [None] if reranking is None else [None, reranking]
    for score in scores(features, settings, device, watched):
        found.append(score)
        if pairs:
            kind = "re_ranked" if score.reranking else "plain"
            rows[kind] = {"per_camera_pair": pairs.rows(), "per_identity": per_identity(score)}
    plain, *re_ranked = found
    return ModelEvaluation(plain, re_ranked[0] if re_ranked else None, rows)


def evaluation_features(
    experiment: Experiment, path: Path, query: str | None, gallery: str | None, device: torch.device
) -> tuple[FeatureSet, EvaluationImages]:
    """Features of the images of two folders by a checkpoint or an ONNX file, which brings its own preprocessing."""
    embedder = ModelFile(path, experiment)(device)
    records = read_evaluation_records(query, gallery, strict=experiment.dataset.strict)
    images = decode_evaluation_images(*records, embedder.image_spec, experiment.dataset.num_workers)
    return compute_features(images, embedder.embed), images
