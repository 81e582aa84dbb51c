"""What a sweep has found and decided, in sentences."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reid_tune.journal.costs import Cost
from reid_tune.journal.state import SweepState
from reid_tune.journal.test_set_usage import test_evaluations_sentence
from reid_tune.report.confirm import explain_winner
from reid_tune.report.summary import format_interval
from reid_tune.search.pareto import pareto_front
from reid_tune.storage.download_cache import display_path
from reid_tune.tables import format_percent

__all__ = [
    "KIND_LABELS",
    "search_end_sentence",
    "test_evaluation_sentences",
    "registration_sentence",
    "seed_sentences",
    "format_spent",
    "report_sentences",
]

KIND_LABELS = {"plain": "plain", "re_ranked": "re-ranked", "tuned": "re-ranked as tuned"}
_ENDS = {
    "trials": "its budget of {trials} trials is used up",
    "hours": "the budget of {hours} hours would be spent, with what the later stages need",
    "gpu_hours": "the budget of {gpu_hours} GPU-hours would be spent, with what the later stages need",
    "cpu_hours": "the budget of {cpu_hours} CPU-hours would be spent, with what the later stages need",
    "patience": "{patience} trials in a row brought no gain",
}


def report_sentences(state: SweepState, folder: Path, spent: Cost) -> Iterator[str]:
    """Why what has won, and by how much; looks at the test sets, what was spent, and where the model is."""
    if ended := search_end_sentence(state):
        yield ended
    if state.costs and (best := pareto_front(state.trials, state.metric, state.costs)):
        numbers = ", ".join(str(trial.number) for trial in best)
        yield f"Pareto front of {state.metric} and {', '.join(state.costs)}: trials {numbers}"
    if confirmed := state.stages.get("confirm"):
        yield explain_winner(confirmed, state.costs)
    yield from _chosen(state.stages.get("rerank", {}))
    yield from _differences(state.stages.get("test", {}).get("models", {}).get("winner", {}).get("against_trial0", {}))
    yield from seed_sentences(state)
    yield from test_evaluation_sentences(state, folder)
    yield f"spent: {format_spent(spent)}"
    if registered := registration_sentence(state):
        yield registered
        yield f"model: {shown(folder)}/export/winner.onnx"


def search_end_sentence(state: SweepState) -> str:
    """Why the search began no further trial; empty before its end."""
    found = state.stages.get("search", {})
    end = _ENDS.get(found.get("ended_by") or "", "")
    return f"the search ended as {end.format(**found['budget'])}" if end else ""


def test_evaluation_sentences(state: SweepState, folder: Path) -> Iterator[str]:
    """For each test set how often it was looked at."""
    for name, count in state.stages.get("test", {}).get("looks", {}).items():
        yield f"{name}: {test_evaluations_sentence(count, shown(folder.parent))}"


def registration_sentence(state: SweepState) -> str:
    """Under which address the winner is registered, and why under this alias; empty before."""
    if not (found := state.stages.get("register")):
        return ""
    address = f"models:/{found['model']}@{found['alias']}"
    return f"registered: {address} (version {found['version']}; {found['reason']})"


def seed_sentences(state: SweepState) -> list[str]:
    """What the training seed is worth on the test folders, by finalist; empty with one refit of each."""
    models = state.stages.get("test", {}).get("models", {})
    return [
        f"{len(found['values'])} refits of {'trial 0' if name == 'trial0' else 'the winner'} by seed: {metric} "
        f"{format_percent(found['mean'])} %, standard deviation {format_percent(found['deviation'])}"
        for name, model in models.items()
        for metric, found in model.get("seeds", {}).items()
    ]


def format_spent(spent: Cost) -> str:
    """Hours, and GPU-hours or else CPU-hours."""
    held = f"{spent.gpu_hours:.2f} GPU-hours" if spent.gpu_hours else f"{spent.cpu_hours:.2f} CPU-hours"
    return f"{spent.hours:.2f} hours, {held}"


def _chosen(found: dict[str, Any]) -> Iterator[str]:
    for name in ("winner", "trial0"):
        if name in found:
            setting = found[name]["setting"]
            yield (
                f"re-ranking of {'trial 0' if name == 'trial0' else 'the winner'}: k1 {setting['k1']}, "
                f"k2 {setting['k2']}, lambda {setting['lambda_value']:g}, the best of {found['settings']}: "
                f"{format_interval(found[name]['gain'])} mAP against plain on the hold-outs"
            )


def _differences(found: dict[str, Any]) -> Iterator[str]:
    for kind, metrics in found.items():
        parts = ", ".join(f"{name} {format_interval(metrics[name])}" for name in ("mAP", "Rank-1"))
        yield f"winner minus trial 0 on the test folders, {KIND_LABELS[kind]}: {parts}"
