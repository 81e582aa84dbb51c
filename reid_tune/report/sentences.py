"""Sentences about a sweep: its decisions and its results."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from reid_tune.config.experiment import canonical_key
from reid_tune.journal.state import SweepState
from reid_tune.report.formatting import format_interval, inline_yaml, list_trials
from reid_tune.report.importances import importance_sentence
from reid_tune.report.summary import SearchAnalysis
from reid_tune.report.test_set_sentences import difference_sentences, evaluation_count_sentences, seed_sentences
from reid_tune.search.forecast import Forecast
from reid_tune.search.parameters import labels_of_keys
from reid_tune.search.pareto import pareto_front
from reid_tune.search.target import find_target_trial
from reid_tune.storage.download_cache import display_path
from reid_tune.tables import format_count, format_percent, format_time

__all__ = [
    "confirm_notes",
    "forecast_sentence",
    "registration_sentence",
    "rerank_gain_sentence",
    "report_sentences",
    "search_end_sentence",
    "space_change_sentences",
]

_STANDARD_ERRORS = {2: 12.7, 3: 4.3, 4: 3.2}  # of a 95 % interval by the number of repeats, by Student's t
_END_REASONS = {
    "trials": "its budget of {trials} trials is used up",
    "hours": "the budget of {hours} hours would be exceeded, later stages included",
    "gpu_hours": "the budget of {gpu_hours} GPU-hours would be exceeded, later stages included",
    "cpu_hours": "the budget of {cpu_hours} CPU-hours would be exceeded, later stages included",
    "patience": "{patience} trials in a row brought no gain",
    "min_gain": "a further trial was expected to gain less than {patience[min_gain]} points",
    "space": "trials have all configurations of the space",
}
_FINALISTS = {"winner": "the winner", "trial0": "trial 0"}


def report_sentences(analysis: SearchAnalysis, folder: Path) -> Iterator[str]:
    """Yield why the search ended, what limits the results, and where the model is; `answers` has the results."""
    state = analysis.state
    yield from space_change_sentences(state)
    if ended := search_end_sentence(state):
        yield ended
    if forecast := analysis.forecast:
        yield forecast_sentence(forecast, state.metric)
    if importances := analysis.importances:
        yield importance_sentence(importances, state.metric, labels_of_keys(state))
    if state.costs and (front := pareto_front(state.trials, state.metric, state.costs)):
        numbers = list_trials([trial.number for trial in front])
        yield f"Pareto front of {state.metric} and {', '.join(state.costs)}: {numbers}"
    if notes := confirm_notes(state.stages.get("confirm", {})):
        yield f"confirm: {notes}"
    yield from _validation_sentences(state)
    yield from _collapse_sentences(state)
    yield from _rerank_sentences(state.stages.get("rerank", {}))
    yield from difference_sentences(state)
    yield from seed_sentences(state)
    yield from evaluation_count_sentences(state, folder)
    if registered := registration_sentence(state):
        yield registered
        yield f"model: {display_path(folder)}/export/winner.onnx"


def space_change_sentences(state: SweepState) -> Iterator[str]:
    """Yield for each change of the space its time, and the ranges that differ."""
    spaces = [*(space for _, space in state.former_spaces), state.header.sweep.get("space", {})]
    for (time, _), (before, after) in zip(state.former_spaces, pairwise(map(_ranges, spaces)), strict=True):
        changes = [
            f"{key} {ranges} " + (f"instead of {before[key]}" if key in before else "is new")
            for key, ranges in after.items()
            if before.get(key) != ranges
        ]
        count = format_count(sum(trial.started < time for trial in state.trials), "trial")
        yield f"the space was changed after {count} ({format_time(time)}): {'; '.join(changes)}"


def _ranges(space: Mapping[str, Any]) -> dict[str, str]:
    return {canonical_key(key): inline_yaml(entry) for key, entry in space.items()}


def search_end_sentence(state: SweepState) -> str:
    """Return why the search started no further trial; empty before its end."""
    result = state.stages.get("search", {})
    if result.get("ended_by") == "target" and (trial := find_target_trial(state, result["target"])):
        scores = ", ".join(f"{metric} {format_percent(score)} %" for metric, score in result["target"].items())
        subject = "trial 0, the spec itself, has" if trial.number == 0 else f"trial {trial.number} has"
        return f"the search ended because {subject} reached the target ({scores})"
    reason = _END_REASONS.get(result.get("ended_by") or "", "")
    return f"the search ended because {reason.format(**result['budget'])}" if reason else ""


def forecast_sentence(forecast: Forecast, metric: str) -> str:
    """Return the predicted score of the best configuration, and the expected gain of a further trial."""
    mean, low, high = map(format_percent, (forecast.mean, forecast.low, forecast.high))
    return (
        f"forecast: another training of trial {forecast.trial} reaches {metric} {mean} % ({low} .. {high}, 95 %), and "
        f"a further trial is expected to gain {100 * forecast.gain:.2f} points"
    )


def confirm_notes(confirm_result: Mapping[str, Any]) -> str:
    """Return what limits the comparison of the stage `confirm`; empty if nothing does, or before the stage."""
    notes, repeats = [], confirm_result.get("repeats")
    if failed := confirm_result.get("failed"):
        notes.append(f"Excluded because a repeat failed: {list_trials(failed)}.")
    if unit := confirm_result.get("race_ended_by"):
        rounds = format_count(confirm_result["rounds"], "round")
        notes.append(f"{_limit(confirm_result, unit)} ended the race of the candidates after {rounds}.")
    elif unit := confirm_result.get("ended_by"):
        notes.append(f"{_limit(confirm_result, unit)} does not reach for more repeats.")
    if repeats == 1:
        notes.append("One repeat does not show how much trainings differ by chance: it has no interval.")
    elif repeats in _STANDARD_ERRORS:
        notes.append(
            f"With {repeats} repeats the interval reaches {_STANDARD_ERRORS[repeats]} standard errors to each side, "
            "with 5 it would be 2.8: only a large gain can be proven."
        )
    return " ".join(notes)


def _limit(confirm_result: Mapping[str, Any], unit: str) -> str:
    return f"budget.{unit} = {confirm_result['budget'][unit]:g}"


def registration_sentence(state: SweepState) -> str:
    """Return the address and the version of the registered winner; empty before `register`."""
    if not (result := state.stages.get("register")):
        return ""
    return f"registered: models:/{result['model']}@{result['alias']} (version {result['version']})"


def _validation_sentences(state: SweepState) -> Iterator[str]:
    """Yield which identities validate, where they are not drawn from all training identities."""
    spec = state.header.spec
    validation, unseen_by = spec.get("dataset.validation", "holdout"), spec.get("dataset.validation_unseen_by", [])
    if validation != "holdout":
        yield (
            f"validated on the images of {validation}, the same in all runs: repeats differ in their training seed "
            "only, so an interval covers seeds and the identities of these images, not other validation splits"
        )
    if unseen_by:
        yield f"validation splits hold out only identities that {', '.join(unseen_by)} has never seen in training"


def _collapse_sentences(state: SweepState) -> Iterator[str]:
    """Yield which trials had collapsed embeddings in their last validation, and what is doubtful on the test sets."""
    validations = {
        trial.number: [metrics for _, metrics in sorted(trial.epochs.items()) if "mAP" in metrics]
        for trial in state.trials
    }
    if collapsed := [number for number, metrics in validations.items() if metrics and "collapse" in metrics[-1]]:
        yield (
            f"warning: the embeddings of {list_trials(collapsed)} had collapsed at the last validation, and so the "
            "scores there say nothing about identities: `reid-tune logs` has the details"
        )
    for name, model in state.stages.get("test", {}).get("models", {}).items():
        for warning in model.get("plain", {}).get("warnings", []):
            yield f"warning: {_FINALISTS.get(name, name)} on the test folders: {warning}"


def _rerank_sentences(rerank_result: dict[str, Any]) -> Iterator[str]:
    for name, label in _FINALISTS.items():
        if name in rerank_result:
            setting = rerank_result[name]["setting"]
            yield (
                f"re-ranking of {label}: k1 {setting['k1']}, k2 {setting['k2']}, "
                f"lambda {setting['lambda_value']:g}, the best of {rerank_result['settings']}: "
                f"{rerank_gain_sentence(rerank_result[name]['gain'])}"
            )


def rerank_gain_sentence(gain: Mapping[str, Any] | None) -> str:
    """Return the gain of a re-ranking over none, on validation splits that did not choose it."""
    if gain is None:
        return "its gain is not known, as no validation split is left that did not choose the setting"
    return f"{format_interval(gain)} mAP against plain, each validation split with the setting that the others choose"
