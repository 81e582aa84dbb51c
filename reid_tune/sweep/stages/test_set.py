"""Test: evaluate the finalists' ONNX files once on the test sets."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.data.fingerprint import fingerprint
from reid_tune.deploy.latency import measure_latency
from reid_tune.errors import RunFailedError
from reid_tune.evaluation.differences import mean_difference
from reid_tune.evaluation.distances import deterministic_algorithms
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.intervals import paired_interval
from reid_tune.evaluation.matches import TopMatches
from reid_tune.evaluation.plots import MAX_FRAMES
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Score, scores
from reid_tune.execution.stage_task import scoring_device
from reid_tune.files import write_atomic
from reid_tune.journal.events import ArtifactWritten, TestSetEvaluated
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import refit_run
from reid_tune.journal.test_set_usage import count_test_evaluations, store_test_evaluation
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.export import onnx_path, refit_checkpoint_path
from reid_tune.sweep.stages.refit import find_finalists
from reid_tune.sweep.stages.rerank import chosen_setting
from reid_tune.tasks.common.calibration import calibrate
from reid_tune.tasks.common.evaluation_pictures import SampledMatches, draw_cmc, sample_matches
from reid_tune.tasks.common.evaluation_sets import EvaluationSet, evaluation_sets
from reid_tune.tasks.common.model_scores import evaluation_features, reranking_of
from reid_tune.tasks.common.open_model import checkpoint_experiment
from reid_tune.training.history_plot import plot_history

__all__ = ["MIN_POOLED_SEEDS", "evaluate_finalists", "pooled_difference"]

# Refits of each finalist from which on their scores are pooled; two would need a gain of 12.7 standard errors.
MIN_POOLED_SEEDS = 3

# Allowed difference of mAP; half precision changes the order of neighbours at nearly the same distance.
_MAP_TOLERANCE = {"fp32": 1e-3, "fp16": 5e-3}
_COMPARED = ("mAP", "mINP", "Rank-1")


@dataclass(frozen=True)
class _Evaluation:
    """Evaluation of one finalist on one test set.

    Attributes:
        features: Embeddings of queries and gallery.
        scores: Scores by kind: plain, re_ranked as the spec says, tuned as the stage `rerank` chose.
        matches: Sampled matches for a picture, None without one.
    """

    features: FeatureSet
    scores: dict[str, Score]
    matches: SampledMatches | None = None

    def as_dict(self) -> dict[str, Any]:
        return {kind: result.report() for kind, result in self.scores.items()}

    def difference_to(self, other: "_Evaluation") -> dict[str, Any]:
        """Return by kind and metric the paired difference with its 95 % interval."""
        return {
            kind: {name: _difference(result, other.scores[kind], name) for name in _COMPARED}
            for kind, result in self.scores.items()
            if kind in other.scores
        }


def evaluate_finalists(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """Score the finalists on the spec's test folders and on `extra_tests`, and count the evaluations of each test set.

    Returns:
        Results by finalist, fingerprints of the test sets, and numbers of evaluations, as plain data.

    Raises:
        RunFailedError: an ONNX file and its checkpoint have different scores.
    """
    sets = evaluation_sets(sweep.experiment)
    evaluations: dict[str, list[_Evaluation]] = {}
    data: dict[str, str] = {}
    for name in find_finalists(journal):
        evaluations[name] = _evaluate(sweep, journal, name, sets)
        data = data or _record_evaluation(sweep, journal, sets)  # also if the stage fails after these scores
    models: dict[str, Any] = {}
    by_seed: dict[str, list[Score]] = {}
    contents: dict[str, Any] = {}
    for name, (first, *others) in evaluations.items():
        extra = {test.name: evaluation.as_dict() for test, evaluation in zip(sets[1:], others, strict=True)}
        models[name] = first.as_dict() | ({"extra_tests": extra} if extra else {})
        models[name]["checkpoint"] = _checkpoint_metrics(sweep, journal, name, first.scores["plain"])
        models[name]["latency"] = measure_latency(onnx_path(sweep, name))
        if sweep.file.refit.seeds > 1:
            by_seed[name] = _seed_scores(sweep, journal, name)
            models[name]["seeds"] = _spread(by_seed[name])
        _draw(sweep, journal, name, first)
        contents[name] = models[name] | {"threshold": _threshold(sweep, name, first.features, sets[0])}
    if "trial0" in evaluations:
        models["winner"]["against_trial0"] = evaluations["winner"][0].difference_to(evaluations["trial0"][0])
        if sweep.file.refit.seeds >= MIN_POOLED_SEEDS:
            models["winner"]["seeds_against_trial0"] = pooled_difference(by_seed["winner"], by_seed["trial0"])
    # The event log, which is read on each resume and for each report, has the scores only.
    write_atomic(sweep.folder / "export" / "test.json", json.dumps(contents, indent=2) + "\n")
    counts = {name: count_test_evaluations(digest, sweep.folder.parent) for name, digest in data.items()}
    return {"models": models, "data": data, "test_evaluations": counts}


def _record_evaluation(sweep: SweepConfig, journal: Journal, sets: Sequence[EvaluationSet]) -> dict[str, str]:
    """Record that the test sets have been evaluated, and return their fingerprints by name.

    A resumed stage, which repeats an evaluation, keeps its id.
    """
    data = {test.name or "test folders": fingerprint(test.query.path, test.gallery.path) for test in sets}
    uid = journal.state.test_evaluation
    if not uid:
        uid = secrets.token_hex(8)
        journal.emit(TestSetEvaluated(uid=uid, data=data))
    store_test_evaluation(uid, data.values(), f"sweep {sweep.file.name} in {sweep.location}")
    return data


def _evaluate(sweep: SweepConfig, journal: Journal, name: str, sets: Sequence[EvaluationSet]) -> list[_Evaluation]:
    """Evaluate a finalist on all test sets, and sample matches of the first one."""
    kinds: dict[str, ReRanking | None] = {"plain": None}
    optional = {"re_ranked": reranking_of(sweep.experiment), "tuned": chosen_setting(journal, name)}
    kinds |= {kind: setting for kind, setting in optional.items() if setting}
    evaluations: list[_Evaluation] = []
    for test in sets:
        features, images = evaluation_features(
            sweep.experiment,
            onnx_path(sweep, name),
            str(test.query.path),
            str(test.gallery.path),
            scoring_device(sweep),
        )
        section = sweep.experiment.re_ranking
        is_drawn = not evaluations and section.num_query * (section.max_rank + 1) <= MAX_FRAMES
        top_matches = TopMatches(features, section.max_rank) if is_drawn else None
        results = _score(sweep, features, list(kinds.values()), top_matches)
        matches = sample_matches(sweep.experiment, images, top_matches, results[-1]) if top_matches else None
        evaluations.append(_Evaluation(features, dict(zip(kinds, results, strict=True)), matches))
    return evaluations


def _score(
    sweep: SweepConfig,
    features: FeatureSet,
    settings: Sequence[ReRanking | None],
    top_matches: TopMatches | None = None,
) -> list[Score]:
    with deterministic_algorithms(sweep.experiment.train.deterministic):
        return list(scores(features, settings, scoring_device(sweep), top_matches))


def _draw(sweep: SweepConfig, journal: Journal, name: str, evaluation: _Evaluation) -> None:
    """Draw CMC curves, sampled matches and the training history, as artifacts of the refit's run."""
    run, folder = refit_run(name), onnx_path(sweep, name).parent
    draw_cmc(evaluation.scores["plain"], evaluation.scores.get("re_ranked"), folder / f"{name}-cmc.png")
    if evaluation.matches:
        evaluation.matches.draw(folder / f"{name}-matches.png")
    plot_history(
        [epoch for _, epoch in sorted(journal.state.runs[run].epochs.items())], folder / f"{name}-schedule.png"
    )
    for picture in ("cmc", "matches", "schedule"):
        path = (folder / f"{name}-{picture}.png").relative_to(sweep.folder)
        # The pictures of the winner are also artifacts of the sweep itself.
        for owner in (run, None) if name == "winner" else (run,):
            journal.emit(ArtifactWritten(run=owner, path=str(path), folder="test"))


def _difference(result: Score, other: Score, metric: str) -> dict[str, float]:
    values, other_values = result.per_query[metric], other.per_query[metric]
    low, high = paired_interval(values, other_values, result.query_ids)
    return {"mean": float((values - other_values).mean()), "low": low, "high": high}


def _threshold(sweep: SweepConfig, name: str, features: FeatureSet, test: EvaluationSet) -> dict[str, Any] | None:
    data = {
        "checkpoint": f"{name}.onnx",
        "query_dataset": str(test.query.path),
        "test_dataset": str(test.gallery.path),
    }
    return calibrate(features, sweep.experiment.evaluate.fmr, data, device=scoring_device(sweep)).as_dict()


def _checkpoint_score(sweep: SweepConfig, path: Path) -> Score:
    dataset = sweep.experiment.dataset
    trained = checkpoint_experiment(load_checkpoint(path, find_passphrase(sweep.experiment)), path)
    folders = dataset.query_dataset_dir, dataset.test_dataset_dir
    features, _ = evaluation_features(trained, path, *folders, scoring_device(sweep))
    return _score(sweep, features, [None])[0]


def _checkpoint_metrics(sweep: SweepConfig, journal: Journal, name: str, plain: Score) -> dict[str, Any]:
    """Return the plain metrics of the checkpoint by PyTorch, which the ONNX file must reproduce."""
    trained = _checkpoint_score(sweep, refit_checkpoint_path(sweep, journal, name))
    if abs(trained.mAP - plain.mAP) > _MAP_TOLERANCE[sweep.experiment.export.precision]:
        raise RunFailedError(
            f"the ONNX file of {name} scores mAP {plain.mAP:.4f} on the test folders, "
            f"but its checkpoint scores {trained.mAP:.4f}."
        )
    return trained.as_dict()


def _seed_scores(sweep: SweepConfig, journal: Journal, name: str) -> list[Score]:
    """Return the plain scores of all refits of a finalist, by PyTorch."""
    return [
        _checkpoint_score(sweep, refit_checkpoint_path(sweep, journal, name, seed))
        for seed in range(1, sweep.file.refit.seeds + 1)
    ]


def pooled_difference(winner: Sequence[Score], baseline: Sequence[Score]) -> dict[str, Any]:
    """Return by metric the mean difference over two finalists' refits, with an interval for seeds and identities.

    Args:
        winner: Scores of the winner's refits on the test folders.
        baseline: Scores of the refits of trial 0 with the same seeds.
    """
    pairs = list(zip(winner, baseline, strict=True))
    return {
        name: mean_difference(
            [(result.per_query[name] - other.per_query[name], result.query_ids) for result, other in pairs]
        ).as_dict()
        for name in _COMPARED
    }


def _spread(results: Sequence[Score]) -> dict[str, Any]:
    """Return mAP and Rank-1 of a finalist's refits, which show the influence of the seed."""
    metrics = [result.as_dict() for result in results]
    by_metric = {name: [values[name] for values in metrics] for name in ("mAP", "Rank-1")}
    return {
        name: {"values": values, "mean": mean(values), "deviation": stdev(values)} for name, values in by_metric.items()
    }
