"""The tables of a sweep's page that say what came out."""

from typing import Any

from reid_tune.journal.state import SweepState
from reid_tune.report.confirm import tied_candidates
from reid_tune.report.sentences import KIND_LABELS
from reid_tune.report.summary import format_interval, test_results, trial_label
from reid_tune.report.tables import HtmlTable
from reid_tune.tables import format_metric, format_percent

__all__ = ["comparison_table", "confirm_table", "latency_table", "rerank_table", "test_table"]

_METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery")
_COUNTS = _METRICS[-2:]
_FINALISTS = {"winner": "winner", "trial0": "trial 0"}


def comparison_table(state: SweepState) -> HtmlTable | None:
    """Winner, trial 0 and their paired difference on the test folders, by kind; None before the test."""
    models = state.stages.get("test", {}).get("models", {})
    if not models:
        return None
    two, differences = "trial0" in models, models["winner"].get("against_trial0", {})
    rows = []
    for kind, words in KIND_LABELS.items():
        for metric in ("mAP", "Rank-1"):
            values = [own[kind][metric] for own in models.values() if kind in own]
            if values:
                more = [format_interval(differences.get(kind, {}).get(metric))] if two else []
                rows.append([f"{metric}, {words}", *map(format_percent, values), *more])
    heads = [("on the test folders", "name"), *((f"{_FINALISTS[name]} %", "") for name in models)]
    return HtmlTable(heads + [("difference, 95 %", "")] * two, rows)


def test_table(state: SweepState) -> HtmlTable | None:
    """All metrics of the finalists on all test sets, with intervals; None before the test."""
    rows = [
        [label, *(format_metric(metrics, name) for name in _METRICS)] for label, metrics in test_results(state).items()
    ]
    heads = [(name if name in _COUNTS else f"{name} %", "") for name in _METRICS]
    return HtmlTable([("", "text"), *heads], rows) if rows else None


def confirm_table(found: dict[str, Any], metric: str) -> HtmlTable:
    """The repeats of each candidate; found: the result of the stage `confirm`."""
    rows, equals = sorted(found["trials"], key=lambda row: -row["mean"]), tied_candidates(found)
    marks = dict.fromkeys(equals, "level with the best") | {found["best"]: "best mean"}
    marks[found["winner"]] = "winner" + (", best mean" if found["winner"] == found["best"] else "")
    heads = [("trial", "text"), (f"{metric} %", ""), ("against trial 0", ""), ("best against it", "")]
    cells = [
        [
            trial_label(row["number"]),
            format_percent(row["mean"]),
            *(format_interval(row[key]) for key in ("against_trial0", "best_against_it")),
            marks.get(row["number"], ""),
            " ".join(map(format_percent, row["values"])),
        ]
        for row in rows
    ]
    return HtmlTable(
        [*heads, ("", "text"), ("each repeat", "")], cells, [row["number"] for row in rows].index(found["winner"])
    )


def rerank_table(state: SweepState) -> HtmlTable | None:
    """The chosen re-ranking of each finalist, and its gain on the hold-outs; None where none was searched."""
    found = state.stages.get("rerank", {})
    rows = []
    for name in _FINALISTS:
        if own := found.get(name):
            setting = [f"{own['setting'][key]:g}" for key in ("k1", "k2", "lambda_value")]
            rows.append(
                [
                    _FINALISTS[name],
                    *setting,
                    format_percent(own["plain"]),
                    format_percent(own["mAP"]),
                    format_interval(own["gain"]),
                ]
            )
    heads = [("", "text"), *((name, "") for name in ("k1", "k2", "lambda", "mAP %, plain", "re-ranked", "gain, 95 %"))]
    return HtmlTable(heads, rows) if rows else None


def latency_table(state: SweepState) -> HtmlTable | None:
    """What the finalists' ONNX files take; None before the test."""
    rows = [
        [_FINALISTS[name], size, *(f"{own[key]:.1f}" for key in ("median_ms", "p90_ms", "images_per_second"))]
        for name, model in state.stages.get("test", {}).get("models", {}).items()
        for size, own in model.get("latency", {}).get("batches", {}).items()
    ]
    heads = [("", "text"), *((name, "") for name in ("batch", "median ms", "90 % within ms", "images per second"))]
    return HtmlTable(heads, rows) if rows else None
