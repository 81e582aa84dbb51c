"""The tables of a sweep's page that say what came out."""

from typing import Any

from reid_tune.journal.state import SweepState
from reid_tune.report.confirm import level
from reid_tune.report.sentences import KINDS
from reid_tune.report.summary import finals, interval, named
from reid_tune.report.tables import Grid
from reid_tune.tables import cell, percent

__all__ = ["compared", "confirmed", "latencies", "reranked", "tests"]

_METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery")
_COUNTS = _METRICS[-2:]
_FINALISTS = {"winner": "winner", "trial0": "trial 0"}


def compared(state: SweepState) -> Grid | None:
    """Winner, trial 0 and their paired difference on the test folders, by kind; None before the test."""
    models = state.stages.get("test", {}).get("models", {})
    if not models:
        return None
    two, differences = "trial0" in models, models["winner"].get("against_trial0", {})
    rows = []
    for kind, words in KINDS.items():
        for metric in ("mAP", "Rank-1"):
            values = [own[kind][metric] for own in models.values() if kind in own]
            if values:
                more = [interval(differences.get(kind, {}).get(metric))] if two else []
                rows.append([f"{metric}, {words}", *map(percent, values), *more])
    heads = [("on the test folders", "name"), *((f"{_FINALISTS[name]} %", "") for name in models)]
    return Grid(heads + [("difference, 95 %", "")] * two, rows)


def tests(state: SweepState) -> Grid | None:
    """All metrics of the finalists on all test sets, with intervals; None before the test."""
    rows = [[label, *(cell(metrics, name) for name in _METRICS)] for label, metrics in finals(state).items()]
    heads = [(name if name in _COUNTS else f"{name} %", "") for name in _METRICS]
    return Grid([("", "text"), *heads], rows) if rows else None


def confirmed(found: dict[str, Any], metric: str) -> Grid:
    """The repeats of each candidate; found: the result of the stage `confirm`."""
    rows, equals = sorted(found["trials"], key=lambda row: -row["mean"]), level(found)
    marks = dict.fromkeys(equals, "level with the best") | {found["best"]: "best mean"}
    marks[found["winner"]] = "winner" + (", best mean" if found["winner"] == found["best"] else "")
    heads = [("trial", "text"), (f"{metric} %", ""), ("against trial 0", ""), ("best against it", "")]
    cells = [
        [
            named(row["number"]),
            percent(row["mean"]),
            *(interval(row[key]) for key in ("against_trial0", "best_against_it")),
            marks.get(row["number"], ""),
            " ".join(map(percent, row["values"])),
        ]
        for row in rows
    ]
    return Grid(
        [*heads, ("", "text"), ("each repeat", "")], cells, [row["number"] for row in rows].index(found["winner"])
    )


def reranked(state: SweepState) -> Grid | None:
    """The chosen re-ranking of each finalist, and its gain on the hold-outs; None where none was searched."""
    found = state.stages.get("rerank", {})
    rows = []
    for name in _FINALISTS:
        if own := found.get(name):
            setting = [f"{own['setting'][key]:g}" for key in ("k1", "k2", "lambda_value")]
            rows.append([_FINALISTS[name], *setting, percent(own["plain"]), percent(own["mAP"]), interval(own["gain"])])
    heads = [("", "text"), *((name, "") for name in ("k1", "k2", "lambda", "mAP %, plain", "re-ranked", "gain, 95 %"))]
    return Grid(heads, rows) if rows else None


def latencies(state: SweepState) -> Grid | None:
    """What the finalists' ONNX files take; None before the test."""
    rows = [
        [_FINALISTS[name], size, *(f"{own[key]:.1f}" for key in ("median_ms", "p90_ms", "images_per_second"))]
        for name, model in state.stages.get("test", {}).get("models", {}).items()
        for size, own in model.get("latency", {}).get("batches", {}).items()
    ]
    heads = [("", "text"), *((name, "") for name in ("batch", "median ms", "90 % within ms", "images per second"))]
    return Grid(heads, rows) if rows else None
