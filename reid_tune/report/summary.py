"""Results of a sweep: ranking, winner, finalists' scores, and the report as data."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

from reid_tune.journal.costs import Cost
from reid_tune.journal.progress import Progress
from reid_tune.journal.state import RunState, SweepState, trial_run
from reid_tune.search.forecast import Forecast, forecast_of
from reid_tune.search.importance import Importances, find_importances
from reid_tune.search.pareto import pareto_front

__all__ = [
    "SearchAnalysis",
    "baseline_score",
    "build_report",
    "finalist_scores",
    "ranked_trials",
    "run_states",
    "winner_number",
    "winner_run",
]

_SCORE_LABELS = {
    "plain": "ONNX",
    "re_ranked": "ONNX, re-ranked",
    "tuned": "ONNX, re-ranked as tuned",
    "checkpoint": "checkpoint",
}


class SearchAnalysis:
    """The results of the search's model for a sweep; each is computed once, when it is first read.

    Args:
        state: State of the sweep.
    """

    def __init__(self, state: SweepState) -> None:
        self.state = state

    @cached_property
    def forecast(self) -> Forecast | None:
        """The forecast, see `forecast_of`."""
        return forecast_of(self.state)

    @cached_property
    def importances(self) -> Importances | None:
        """The importances, see `find_importances`; they take seconds with many keys."""
        return find_importances(self.state)


def build_report(analysis: SearchAnalysis, spent: Mapping[str, Cost] | None = None) -> dict[str, Any]:
    """Return the results as plain data; scores are fractions, and only `latency` and `spent` hold times.

    Args:
        spent: Costs by stage, from `CostLedger.by_stage`.
    """
    state = analysis.state
    metric, costs = state.metric, state.costs
    test_result: dict[str, Any] = state.stages.get("test", {})
    models = test_result.get("models", {})
    scores = {name: {key: value for key, value in model.items() if key != "latency"} for name, model in models.items()}
    return {
        "name": state.header.name,
        "trials": [_trial_content(trial, metric) for trial in state.trials],
        "winner": winner_number(state),
        "trial0": next((trial.last(metric) for trial in state.trials if trial.number == 0), None),
        "stages": list(state.stages),
        "forecast": forecast.as_dict() if (forecast := analysis.forecast) else None,
        "importances": importances.as_dict() if (importances := analysis.importances) else None,
        **({"front": [trial.number for trial in pareto_front(state.trials, metric, costs)]} if costs else {}),
        "confirm": state.stages.get("confirm"),
        "rerank": state.stages.get("rerank"),
        "test": scores or None,
        "test_evaluations": test_result.get("test_evaluations"),
        "registered": state.stages.get("register"),
        "latency": {name: model["latency"] for name, model in models.items() if "latency" in model} or None,
        **({"spent": {stage: asdict(cost) for stage, cost in spent.items()}} if spent is not None else {}),
    }


def _trial_content(trial: RunState, metric: str) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "epoch": trial.epoch,
        metric: trial.last(metric),
        "costs": trial.costs,
        "parameters": trial.parameters,
        "origin": trial.origin,
        **{key: text for key in ("reason", "failure") if (text := getattr(trial, key))},
    }


def winner_number(state: SweepState) -> int | None:
    """Return the number of the trial that `winner_run` returns."""
    return trial.number if (trial := winner_run(state)) else None


def winner_run(state: SweepState) -> RunState | None:
    """Return the winner by the stage `confirm`; before that stage the best full-length trial; None without one."""
    if "confirm" in state.stages:
        return state.runs.get(trial_run(state.stages["confirm"]["winner"]))
    return next(iter(state.finished()), None)


def run_states(state: SweepState, progress: Progress) -> dict[str, str]:
    """Return the state of each run; a running one whose driver has ended is `interrupted`."""
    driver_ended = progress.state in ("interrupted", "ended", "finished")
    return {
        name: "interrupted" if driver_ended and run.state == "running" else run.state
        for name, run in state.runs.items()
    }


def baseline_score(state: SweepState) -> float | None:
    """Return the score of trial 0; None unless it has reached its last epoch."""
    return next((trial.last(state.metric) for trial in state.finished() if trial.number == 0), None)


def ranked_trials(state: SweepState) -> list[RunState]:
    """Return the trials, the best first; full-length trials come before those that were stopped early."""
    full = state.finished()
    others = [trial for trial in state.trials if trial not in full]
    return full + sorted(others, key=lambda trial: (-trial.epoch, -(trial.last(state.metric) or 0.0), trial.number))


def finalist_scores(state: SweepState) -> dict[str, dict[str, Any]]:
    """Return the finalists' metrics on the test folders and `extra_tests`, by label; empty before the stage `test`."""
    names = {"winner": f"winner (trial {winner_number(state)})", "trial0": "trial 0"}
    scores: dict[str, dict[str, Any]] = {}
    for finalist, model in state.stages.get("test", {}).get("models", {}).items():
        test_sets = {"": model} | {f", {name}": results for name, results in model.get("extra_tests", {}).items()}
        for suffix, results in test_sets.items():
            for kind, label in _SCORE_LABELS.items():
                if metrics := results.get(kind):
                    scores[f"{names[finalist]}, {label}{suffix}"] = metrics
    return scores
