"""The task `evaluate`: compute the metrics of checkpoints or ONNX files on query and gallery folders."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.data.account import accounts_as_dict, describe_accounts
from reid_tune.data.fingerprint import fingerprint
from reid_tune.errors import InputError
from reid_tune.evaluation.distances import deterministic_algorithms
from reid_tune.files import write_atomic
from reid_tune.tasks.common.calibration import calibrate
from reid_tune.tasks.common.evaluation_pictures import Pictures
from reid_tune.tasks.common.evaluation_sets import EvaluationSet, evaluation_sets
from reid_tune.tasks.common.feature_files import print_warnings
from reid_tune.tasks.common.model_references import ONNX, resolve_models
from reid_tune.tasks.common.model_scores import ModelEvaluation, evaluate_features, reranking_of
from reid_tune.tasks.common.open_model import ModelFile, describe_inputs
from reid_tune.tasks.common.scored_features import count_evaluation
from reid_tune.tasks.common.status_log import StatusLog, kpi, logged
from reid_tune.tasks.train import describe_run
from reid_tune.training.devices import task_devices
from reid_tune.training.embedding import Embedder, ModelOpener, compute_features
from reid_tune.training.embedding_pool import open_embedding_pool
from reid_tune.training.image_sets import EvaluationImages

__all__ = ["Evaluation", "run_evaluate"]

_SELECTED_ON_TEST = "note: a checkpoint that is chosen by this table is selected on test, and its score is too good"


@dataclass(frozen=True)
class Evaluation:
    """All scores of a run of the task.

    Attributes:
        scores: Scores by model and test set; the spec's own test set has an empty name.
        is_folder: Whether a folder of checkpoints was evaluated.
    """

    scores: dict[str, dict[str, ModelEvaluation]]
    is_folder: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `metrics.json`."""
        models = {}
        for model, tests in self.scores.items():
            (_, first), *extra = ((test, evaluation.as_dict()) for test, evaluation in tests.items())
            models[model] = first | ({"extra_tests": dict(extra)} if extra else {})
        return {"checkpoints": models, "selected_on": "test"} if self.is_folder else next(iter(models.values()))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return metrics by label for a table.

        The spec's own test set comes first, and in each set the plain scores before the re-ranked ones.
        """
        tests = dict.fromkeys(test for evaluations in self.scores.values() for test in evaluations)
        return {
            ", ".join(filter(None, (model if self.is_folder else "", test, kind.replace("_", "-")))): score.report()
            for test in tests
            for kind in ("plain", "re_ranked")
            for model, evaluations in self.scores.items()
            if (score := getattr(evaluations[test], kind))
        }


def run_evaluate(experiment: Experiment) -> Evaluation:
    """Evaluate `evaluate.checkpoint`, a file or a folder; write `metrics.json` and the requested pictures.

    Raises:
        InputError: the checkpoints, the data or the spec are unusable; raised before any image is read.
        RunFailedError: a worker died.
    """
    directory = experiment.task_dir("evaluate")
    with logged(directory, "evaluate") as log:
        evaluator = _Evaluator(experiment)
        for line in evaluator.describe():
            print(line, file=sys.stderr)
        with open_embedding_pool(evaluator.devices) as load:
            for model in evaluator.models:
                load(model)
            evaluator.pictures.require_writable()
            write_atomic(directory / "experiment.yaml", experiment.to_yaml())
            log.write("STARTED", "evaluate started", data=accounts_as_dict(evaluator.accounts))
            evaluation = Evaluation(evaluator.evaluate(load, log), evaluator.is_folder)
        write_atomic(directory / "metrics.json", json.dumps(evaluation.as_dict(), indent=2) + "\n")
        if not evaluator.is_folder:
            first = next(iter(evaluation.scores.values()))[""]
            evaluator.pictures.draw(first.plain, first.re_ranked, first.calibration)
        return evaluation


class _Evaluator:
    """Models, test sets and pictures of an evaluation, checked except for the content of models and images.

    Raises:
        InputError: a model, a test set or a picture of the spec is unusable.
    """

    def __init__(self, experiment: Experiment) -> None:
        checkpoint = experiment.evaluate.checkpoint
        if not checkpoint:
            raise InputError(
                "evaluate.checkpoint is not set: give a checkpoint, a folder of them, an .onnx file, "
                "models:/NAME@ALIAS or sweep:NAME."
            )
        self.experiment = experiment
        self.pictures = Pictures(experiment)
        self.is_folder = Path(checkpoint).is_dir()
        if self.is_folder and self.pictures.requested_fields:
            raise InputError(
                f"{self.pictures.requested_fields[0]} is the picture of one model, but evaluate.checkpoint = "
                f"{checkpoint!r} is a folder: omit the picture or name a file."
            )
        self.models = [ModelFile(path, experiment) for path in resolve_models(checkpoint, ONNX)]
        self.tests = evaluation_sets(experiment)
        self.accounts = {name: account for test in self.tests for name, account in test.accounts.items()}
        self.devices = task_devices(experiment, "evaluate")
        self._counted: set[str] = set()  # fingerprints of test sets

    def describe(self) -> list[str]:
        """Return lines about the data and the devices, to be shown before the work."""
        left_out = describe_accounts(self.accounts)
        lines = [left_out] if left_out else []
        for test in self.tests:
            lines += test.describe_queries()
        if self.is_folder:
            lines.append(_SELECTED_ON_TEST)
        return [*lines, *describe_inputs(self.models), describe_run(self.experiment, "evaluate", self.devices)]

    def evaluate(
        self, load: Callable[[ModelOpener], Embedder], log: StatusLog
    ) -> dict[str, dict[str, ModelEvaluation]]:
        """Return the scores by model and test set.

        The images of one set are decoded once for all models, and kept in memory while the set is evaluated.
        """
        results: dict[str, dict[str, ModelEvaluation]] = {model.path.name: {} for model in self.models}
        for test in self.tests:
            decoded: tuple[tuple[Any, ...], EvaluationImages] | None = None
            for model in self.models:
                embedder = load(model)
                if decoded is None or decoded[0] != embedder.image_spec.decoding:
                    decoded = (
                        embedder.image_spec.decoding,
                        test.decode(embedder.image_spec, self.experiment.dataset.num_workers),
                    )
                evaluation = self._evaluate_model(model.path.name, test, decoded[1], embedder)
                results[model.path.name][test.name] = evaluation
                subject = f"{model.path.name} on {test.name or 'the test folders'}"
                score = evaluation.headline
                warnings = {"warnings": list(score.warnings)} if score.warnings else {}
                log.write("RUNNING", f"{subject}: {score.protocol}", kpi=kpi(score.as_dict()), **warnings)
                print_warnings(score.warnings, subject)
        return results

    def _count(self, test: EvaluationSet) -> None:
        """Count an evaluation of a test set as soon as a model has scores, whatever happens afterwards."""
        digest = fingerprint(test.query.path, test.gallery.path)
        if digest in self._counted:
            return
        self._counted.add(digest)
        sentence = count_evaluation(digest, f"evaluate {self.experiment.evaluate.checkpoint}")
        print(f"{test.name or 'test folders'}: {sentence}", file=sys.stderr)

    def _evaluate_model(
        self, model: str, test: EvaluationSet, images: EvaluationImages, embedder: Embedder
    ) -> ModelEvaluation:
        features = compute_features(images, embedder.embed)
        top_matches = None if test.name else self.pictures.top_matches(features)
        spec, device = self.experiment, self.devices[0]
        with deterministic_algorithms(spec.train.deterministic):
            evaluation = evaluate_features(features, reranking_of(spec), top_matches, spec.evaluate.details, device)
        self._count(test)
        if top_matches:
            self.pictures.keep_matches(images, top_matches, evaluation.headline)
        data = {"checkpoint": model, "query_dataset": str(test.query.path), "test_dataset": str(test.gallery.path)}
        calibration = calibrate(features, spec.evaluate.fmr, data, device=device)
        if isinstance(calibration.threshold, InputError):
            print(
                f"note: {model} on {test.query.path} has no threshold for evaluate.fmr: {calibration.threshold}",
                file=sys.stderr,
            )
        return replace(evaluation, calibration=replace(calibration, warnings=evaluation.plain.warnings))
