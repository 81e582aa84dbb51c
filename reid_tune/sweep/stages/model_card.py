"""The model card of a registered version in Markdown, and its tags."""

import json
from pathlib import Path
from typing import Any

from reid_tune.deploy.parity import Parity
from reid_tune.journal.costs import Cost
from reid_tune.journal.state import SweepState
from reid_tune.report.formatting import KIND_LABELS, trial_label
from reid_tune.report.markdown import answer_paragraphs, escape_markdown
from reid_tune.report.sentences import confirm_notes
from reid_tune.report.test_set_sentences import evaluation_count_sentences
from reid_tune.tables import format_count, format_metric, format_percent

__all__ = ["model_version_tags", "render_model_card"]

_METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")


def render_model_card(state: SweepState, folder: Path, spent: Cost) -> str:
    """Return the results of the winner in percent with 95 % intervals, as Markdown.

    Args:
        state: State of the sweep after the stage `test`.
        folder: Folder of the sweep.
        spent: Cost of the sweep until now.
    """
    number, plain = state.stages["confirm"]["winner"], state.stages["test"]["models"]["winner"]["plain"]
    # MLflow's table of versions shows the first words.
    headline = f"mAP {format_percent(plain['mAP'])} %, Rank-1 {format_percent(plain['Rank-1'])} % on test"
    paragraphs = [
        f"{headline}: winner of the sweep **{escape_markdown(state.header.name)}**, trial {trial_label(number)}.",
        *answer_paragraphs(state, spent),
        _table(state.stages["test"]["models"]["winner"]),
        # The spec's own test folders are the first.
        escape_markdown(f"{next(evaluation_count_sentences(state, folder))}."),
        escape_markdown(_confirm_sentence(state)),
        f"The ONNX file against PyTorch: {Parity(**state.stages['export']['winner']['parity'])}.",
    ]
    return "\n\n".join(paragraphs)


def model_version_tags(state: SweepState) -> dict[str, str]:
    """Return sweep and trial, plain metrics on test as fractions, test-set evaluations and parity."""
    test_result = state.stages["test"]
    plain = test_result["models"]["winner"]["plain"]
    return {
        "sweep": state.header.name,
        "trial": str(state.stages["confirm"]["winner"]),
        "test_evaluations": str(next(iter(test_result["test_evaluations"].values()))),
        "parity": json.dumps(state.stages["export"]["winner"]["parity"]),
        **{f"test/{name}": f"{plain[name]:.4f}" for name in _METRICS},
    }


def _table(winner: dict[str, Any]) -> str:
    rows = [["test folders", *(f"{name} %" for name in _METRICS)], ["---", *("---:" for _ in _METRICS)]]
    rows += [
        [KIND_LABELS[kind], *(format_metric(winner[kind], name) for name in _METRICS)]
        for kind in KIND_LABELS
        if kind in winner
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _confirm_sentence(state: SweepState) -> str:
    result = state.stages["confirm"]
    row = next(row for row in result["trials"] if row["number"] == result["winner"])
    mean = f"{state.metric} {format_percent(row['mean'])} %"
    repeats = format_count(result["repeats"], "repeat")
    return f"Validation splits, mean of {repeats}: {mean}. {confirm_notes(result)}".rstrip()
