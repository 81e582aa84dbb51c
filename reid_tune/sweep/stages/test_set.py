"""Test: the finalists' ONNX files, once, on the test folders."""

import json
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
from reid_tune.evaluation.distances import deterministic_algorithms
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.intervals import paired_interval
from reid_tune.evaluation.matches import TopMatches
from reid_tune.evaluation.plots import MAX_FRAMES
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Score, scores
from reid_tune.execution.stage_task import scoring_device
from reid_tune.files import write_atomic
from reid_tune.journal.events import ArtifactWritten
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import refit_run
from reid_tune.journal.test_set_usage import count_test_evaluations
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.export import onnx_path, refit_checkpoint_path
from reid_tune.sweep.stages.refit import find_finalists
from reid_tune.sweep.stages.rerank import chosen_setting
from reid_tune.tasks.common.calibration import calibrate
from reid_tune.tasks.common.evaluation_pictures import SampledMatches, draw_cmc, sample_matches
from reid_tune.tasks.common.evaluation_sets import EvaluationSet, evaluation_sets
from reid_tune.tasks.common.open_model import checkpoint_experiment
from reid_tune.tasks.evaluate import evaluation_features, reranking_of
from reid_tune.training.curves import schedule_plot

__all__ = ["evaluate_finalists"]

# Half precision lets neighbours that are as near change places.
SAME_MAP = {"fp32": 1e-3, "fp16": 5e-3}
_COMPARED = ("mAP", "mINP", "Rank-1")


@dataclass(frozen=True)
class _Tested:
    """One finalist on one test set, by kind: plain, re_ranked as the spec says, tuned as the stage `rerank` chose."""

    features: FeatureSet
    scores: dict[str, Score]
    matches: SampledMatches | None = None

    def as_dict(self) -> dict[str, Any]:
        return {kind: found.report() for kind, found in self.scores.items()}

    def difference_to(self, other: "_Tested") -> dict[str, Any]:
        """By kind and metric the paired difference with its 95 % interval."""
        return {
            kind: {name: _difference(found, other.scores[kind], name) for name in _COMPARED}
            for kind, found in self.scores.items()
            if kind in other.scores
        }


def evaluate_finalists(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """Score the finalists on the spec's test folders and on `extra_tests`; count the evaluations of each of them.

    Raises:
        RunFailedError: an ONNX file scores otherwise than its checkpoint.
    """
    sets = evaluation_sets(sweep.experiment)
    found = {name: _scores(sweep, journal, name, sets) for name in find_finalists(journal)}
    models: dict[str, Any] = {}
    contents: dict[str, Any] = {}
    for name, (first, *extra) in found.items():
        more = {own.name: tested.as_dict() for own, tested in zip(sets[1:], extra, strict=True)}
        models[name] = first.as_dict() | ({"extra_tests": more} if more else {})
        models[name]["checkpoint"] = _checkpoint_metrics(sweep, journal, name, first.scores["plain"])
        models[name]["latency"] = measure_latency(onnx_path(sweep, name))
        if sweep.file.refit.seeds > 1:
            models[name]["seeds"] = _over_seeds(sweep, journal, name)
        _draw(sweep, journal, name, first)
        contents[name] = models[name] | {"threshold": _threshold(sweep, name, first.features, sets[0])}
    if "trial0" in found:
        models["winner"]["against_trial0"] = found["winner"][0].difference_to(found["trial0"][0])
    # The log, which resumes and reports read, has the scores alone.
    write_atomic(sweep.folder / "export" / "test.json", json.dumps(contents, indent=2) + "\n")
    data = {own.name or "test folders": fingerprint(own.query.path, own.gallery.path) for own in sets}
    # This evaluation is not in the log yet.
    counts = {name: 1 + count_test_evaluations(sweep.folder.parent, digest) for name, digest in data.items()}
    return {"models": models, "data": data, "test_evaluations": counts}


def _scores(sweep: SweepConfig, journal: Journal, name: str, sets: Sequence[EvaluationSet]) -> list[_Tested]:
    """On all test sets; with sampled matches of the first."""
    kinds: dict[str, ReRanking | None] = {"plain": None}
    kinds |= {"re_ranked": given} if (given := reranking_of(sweep.experiment)) else {}
    kinds |= {"tuned": chosen} if (chosen := chosen_setting(journal, name)) else {}
    found: list[_Tested] = []
    for own in sets:
        features, images = evaluation_features(
            sweep.experiment, onnx_path(sweep, name), str(own.query.path), str(own.gallery.path), scoring_device(sweep)
        )
        section = sweep.experiment.re_ranking
        drawable = not found and section.num_query * (section.max_rank + 1) <= MAX_FRAMES
        watch = TopMatches(features, section.max_rank) if drawable else None
        values = _scored(sweep, features, list(kinds.values()), watch)
        matches = sample_matches(sweep.experiment, images, watch, values[-1]) if watch else None
        found.append(_Tested(features, dict(zip(kinds, values, strict=True)), matches))
    return found


def _scored(
    sweep: SweepConfig, features: FeatureSet, settings: Sequence[ReRanking | None], watch: TopMatches | None = None
) -> list[Score]:
    with deterministic_algorithms(sweep.experiment.train.deterministic):
        return list(scores(features, settings, scoring_device(sweep), watch))


def _draw(sweep: SweepConfig, journal: Journal, name: str, tested: _Tested) -> None:
    """CMC curves, sampled matches and the course of the training, for those who look at the refit's run."""
    run, folder = refit_run(name), onnx_path(sweep, name).parent
    draw_cmc(tested.scores["plain"], tested.scores.get("re_ranked"), folder / f"{name}-cmc.png")
    if tested.matches:
        tested.matches.draw(folder / f"{name}-matches.png")
    schedule_plot(
        [epoch for _, epoch in sorted(journal.state.runs[run].epochs.items())], folder / f"{name}-schedule.png"
    )
    for picture in ("cmc", "matches", "schedule"):
        path = (folder / f"{name}-{picture}.png").relative_to(sweep.folder)
        # The winner's are shown with the sweep itself, too.
        for owner in (run, None) if name == "winner" else (run,):
            journal.emit(ArtifactWritten(run=owner, path=str(path), folder="test"))


def _difference(own: Score, other: Score, metric: str) -> dict[str, float]:
    ours, theirs = own.per_query[metric], other.per_query[metric]
    low, high = paired_interval(ours, theirs, own.query_ids)
    return {"mean": float((ours - theirs).mean()), "low": low, "high": high}


def _threshold(sweep: SweepConfig, name: str, features: FeatureSet, own: EvaluationSet) -> dict[str, Any] | None:
    data = {
        "checkpoint": f"{name}.onnx",
        "query_dataset": str(own.query.path),
        "test_dataset": str(own.gallery.path),
    }
    return calibrate(features, sweep.experiment.evaluate.fmr, data, device=scoring_device(sweep)).as_dict()


def _checkpoint_score(sweep: SweepConfig, path: Path) -> Score:
    dataset = sweep.experiment.dataset
    trained = checkpoint_experiment(load_checkpoint(path, find_passphrase(sweep.experiment)), path)
    folders = dataset.query_dataset_dir, dataset.test_dataset_dir
    features, _ = evaluation_features(trained, path, *folders, scoring_device(sweep))
    return _scored(sweep, features, [None])[0]


def _checkpoint_metrics(sweep: SweepConfig, journal: Journal, name: str, plain: Score) -> dict[str, Any]:
    """Plain metrics of the checkpoint by PyTorch, which the ONNX file must repeat."""
    trained = _checkpoint_score(sweep, refit_checkpoint_path(sweep, journal, name))
    if abs(trained.mAP - plain.mAP) > SAME_MAP[sweep.experiment.export.precision]:
        raise RunFailedError(
            f"the ONNX file of {name} scores mAP {plain.mAP:.4f} on the test folders, "
            f"but its checkpoint {trained.mAP:.4f}."
        )
    return trained.as_dict()


def _over_seeds(sweep: SweepConfig, journal: Journal, name: str) -> dict[str, Any]:
    """Plain mAP and Rank-1 of all refits of a finalist, by PyTorch: what its seed is worth."""
    found = [
        _checkpoint_score(sweep, refit_checkpoint_path(sweep, journal, name, seed)).as_dict()
        for seed in range(1, sweep.file.refit.seeds + 1)
    ]
    values = {metric: [each[metric] for each in found] for metric in ("mAP", "Rank-1")}
    return {metric: {"values": own, "mean": mean(own), "deviation": stdev(own)} for metric, own in values.items()}
