"""Sentences about the results of a sweep on its test sets."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reid_tune.journal.state import SweepState
from reid_tune.journal.test_set_usage import evaluation_count_sentence
from reid_tune.report.formatting import KIND_LABELS, format_interval
from reid_tune.storage.download_cache import display_path
from reid_tune.tables import format_percent

__all__ = ["difference_sentences", "evaluation_count_sentences", "pooled_sentence", "seed_sentences"]

_FINALISTS = {"winner": "the winner", "trial0": "trial 0"}


def difference_sentences(state: SweepState) -> Iterator[str]:
    """Yield the differences of the winner's file to that of trial 0, and what chance their intervals cover."""
    differences = _winner(state).get("against_trial0", {})
    for kind, metrics in differences.items():
        yield f"winner minus trial 0 on the test folders, {KIND_LABELS[kind]}: {_differences(metrics)}"
    if sentence := pooled_sentence(state):
        yield sentence


def pooled_sentence(state: SweepState) -> str:
    """Return what chance the intervals of the test cover; empty before the test."""
    if not (winner := _winner(state)):
        return ""
    sentence = "the intervals on the test folders cover the choice of identities only, for one refit of each model"
    if pooled := winner.get("seeds_against_trial0"):
        return (
            f"{sentence}; pooled over {pooled['mAP']['repeats']} refits of each with other seeds, winner minus trial "
            f"0, plain: {_differences(pooled)}, which covers seeds and identities"
        )
    return f"{sentence}: another seed may change more, and refit.seeds of 3 or more pools several refits"


def _winner(state: SweepState) -> dict[str, Any]:
    models: dict[str, dict[str, Any]] = state.stages.get("test", {}).get("models", {})
    return models.get("winner", {})


def _differences(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {format_interval(metrics[name])}" for name in ("mAP", "Rank-1"))


def seed_sentences(state: SweepState) -> list[str]:
    """Return the spread between seeds on the test folders, by finalist; empty with one refit of each."""
    models = state.stages.get("test", {}).get("models", {})
    return [
        f"{len(spread['values'])} refits of {_FINALISTS[name]} by seed: {metric} "
        f"{format_percent(spread['mean'])} %, standard deviation {format_percent(spread['deviation'])}"
        for name, model in models.items()
        for metric, spread in model.get("seeds", {}).items()
    ]


def evaluation_count_sentences(state: SweepState, folder: Path) -> Iterator[str]:
    """Yield for each test set how often it was evaluated."""
    for name, count in state.stages.get("test", {}).get("test_evaluations", {}).items():
        yield f"{name}: {evaluation_count_sentence(count, display_path(folder.parent))}"
