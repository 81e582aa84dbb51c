"""Tables of a sweep's HTML page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_tune.config.keys import is_bundle_key
from reid_tune.journal.progress import Progress
from reid_tune.journal.state import RunState, SweepState
from reid_tune.report.formatting import (
    FINALIST_LABELS,
    KIND_LABELS,
    format_cost,
    format_interval,
    format_parameter,
    format_score,
    format_value,
    inline_yaml,
    trial_label,
)
from reid_tune.report.plan_sentences import data_sentences
from reid_tune.report.summary import finalist_scores, ranked_trials, run_states, winner_number
from reid_tune.report.tables import confirm_rows
from reid_tune.search.parameters import searched_parameters, space_parameters
from reid_tune.storage.download_cache import display_path
from reid_tune.tables import format_metric, format_percent

__all__ = [
    "HtmlTable",
    "comparison_table",
    "confirm_table",
    "environment_table",
    "failures_table",
    "latency_table",
    "rerank_table",
    "scores_table",
    "settings_table",
    "space_table",
    "trials_table",
]

_COUNTS = ("queries", "gallery")
_METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", *_COUNTS)


@dataclass(frozen=True)
class HtmlTable:
    """A table of the page.

    Attributes:
        columns: Name and kind of each column: `text`, `name` (text that may break), `wide` (sentences), "" (numbers).
        best: Index of the highlighted row.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    best: int | None = None


def trials_table(state: SweepState, progress: Progress, front: Sequence[RunState] = ()) -> HtmlTable:
    """Return all trials, the best first, with those of the Pareto front marked."""
    keys, states = searched_parameters(state), run_states(state, progress)
    columns = [("trial", "text"), ("state", "text"), ("epoch", ""), (f"{state.metric} %", "")]
    columns += [(cost, "") for cost in state.costs] + ([("front", "text")] if front else [])
    columns += [*((key.label, "") for key in keys), ("from", "text"), ("reason", "wide")]
    rows, trials = [], ranked_trials(state)
    for trial in trials:
        row = [trial_label(trial.number), states[trial.name], str(trial.epoch), format_score(trial.last(state.metric))]
        row += [format_cost(trial, cost) for cost in state.costs]
        if front:
            row.append("yes" if trial in front else "")
        row += [format_parameter(key, trial) for key in keys]
        rows.append([*row, trial.origin, trial.reason])
    numbers, winner = [trial.number for trial in trials], winner_number(state)
    return HtmlTable(columns, rows, numbers.index(winner) if winner in numbers else None)


def failures_table(state: SweepState, folder: Path) -> HtmlTable | None:
    """Return the runs that failed or were retried, with reasons and logs; None without any."""
    rows = [
        [run.name, run.state, _failure_counts(run), str(run.epoch), str(run.attempts), run.reason, _log(folder, run)]
        for run in state.runs.values()
        if run.state == "failed" or run.retries
    ]
    columns = [("run", "text"), ("state", "text"), ("failures", "text"), ("epoch", ""), ("attempts", "")]
    return HtmlTable([*columns, ("reason", "wide"), ("log", "wide")], rows) if rows else None


def _failure_counts(run: RunState) -> str:
    failures = [*run.retries, *([run.failure] if run.failure else [])]
    return ", ".join(f"{failures.count(kind)} {kind.replace('_', ' ')}" for kind in dict.fromkeys(failures))


def _log(folder: Path, run: RunState) -> str:
    path = Path(run.name) / "log.txt"
    return str(path) if (folder / path).is_file() else ""


def space_table(state: SweepState, best: RunState | None) -> HtmlTable:
    """Return the searched keys with their ranges, the spec's values and those of the best trial."""
    columns = [("searched", "text"), ("range", "text"), ("spec", "")] + ([("best trial", "")] if best else [])
    rows = []
    for key in space_parameters(state):
        best_value = [format_parameter(key, best)] if best else []
        is_outside = is_bundle_key(key.key) and key.spec_value is None  # The spec is not in a bundle.
        rows.append([key.key, inline_yaml(key.range), "-" if is_outside else format_value(key.spec_value), *best_value])
    return HtmlTable(columns, rows)


def settings_table(state: SweepState, folder: Path) -> HtmlTable:
    """Return the settings of the search-space file, and the data."""
    sweep, spec = state.header.sweep, state.header.spec
    plan = state.stages.get("preflight", {})
    rows = [["folder", display_path(folder.absolute())]]
    rows += [[key, inline_yaml(value)] for key, value in sweep.items() if key not in ("name", "space") and value != []]
    if plan.get("rungs"):
        rows.append(["rungs", "epochs " + ", ".join(map(str, plan["rungs"]))])
    rows.append(["train.seed", inline_yaml(spec.get("train.seed"))])
    rows += [["data", line] for line in _data(state, plan)]
    folders = ("train_dataset_dir", "query_dataset_dir", "test_dataset_dir")
    rows += [[name, inline_yaml(spec[f"dataset.{name}"])] for name in folders if spec.get(f"dataset.{name}")]
    return HtmlTable([("setting", "text"), ("value", "wide")], rows)


def _data(state: SweepState, plan: dict[str, Any]) -> Iterator[str]:
    if "training_images" in plan:
        yield from data_sentences(plan)
    metrics = [metrics for trial in state.trials for metrics in trial.epochs.values() if "queries" in metrics]
    if metrics:
        yield f"validation split: {metrics[-1]['queries']} queries, {metrics[-1]['gallery']} gallery images"


def environment_table(state: SweepState) -> HtmlTable | None:
    """Return code, libraries, machine, data and weights of the last driver; None where they were not recorded."""
    if not (environment := state.environment):
        return None
    rows = [[name, str(version)] for name, version in environment.get("packages", {}).items() if version]
    if commit := environment.get("commit"):
        rows.append(["commit", commit + (", with changes" if environment.get("dirty") else "")])
    rows += [[name, inline_yaml(value)] for name, value in environment.get("machine", {}).items() if value]
    if data := environment.get("data"):
        rows.append(["training data", f"fingerprint {data['fingerprint']}"])
    if weights := environment.get("weights"):
        rows.append(["pretrained weights", f"{weights['file']}, sha256 {weights['sha256']}"])
    return HtmlTable([("of the last driver", "text"), ("", "wide")], rows)


def confirm_table(confirm_result: dict[str, Any], metric: str) -> HtmlTable:
    """Return the repeats of the compared trials, and the race before.

    Args:
        confirm_result: Result of the stage `confirm`.
    """
    rows = confirm_rows(confirm_result)
    columns = [("trial", "text"), (f"{metric} %", ""), ("each repeat", ""), ("against trial 0", "")]
    if confirm_result["rounds"]:
        columns.append(("race before, by round", ""))
    winner_row = [number for number, _ in rows].index(confirm_result["winner"])
    return HtmlTable(columns, [[trial_label(number), *cells] for number, cells in rows], winner_row)


def rerank_table(state: SweepState) -> HtmlTable | None:
    """Return the chosen re-ranking of each finalist, and its gain where it is known; None without a search."""
    result = state.stages.get("rerank", {})
    rows = []
    for name, label in FINALIST_LABELS.items():
        if choice := result.get(name):
            setting = [f"{choice['setting'][key]:g}" for key in ("k1", "k2", "lambda_value")]
            rows.append(
                [label, *setting, format_percent(choice["plain"]), format_interval(choice["gain"]) or "not known"]
            )
    names = ("k1", "k2", "lambda", "mAP %, plain", "gain, 95 %")
    return HtmlTable([("", "text"), *((name, "") for name in names)], rows) if rows else None


def comparison_table(state: SweepState) -> HtmlTable | None:
    """Return winner, trial 0 and their paired difference on the test folders, by kind; None before the test."""
    models = state.stages.get("test", {}).get("models", {})
    if not models:
        return None
    has_baseline, differences = "trial0" in models, models["winner"].get("against_trial0", {})
    rows = []
    for kind, label in KIND_LABELS.items():
        for metric in ("mAP", "Rank-1"):
            values = [model[kind][metric] for model in models.values() if kind in model]
            if values:
                difference = [format_interval(differences.get(kind, {}).get(metric))] if has_baseline else []
                rows.append([f"{metric}, {label}", *map(format_percent, values), *difference])
    columns = [("on the test folders", "name"), *((f"{FINALIST_LABELS[name]} %", "") for name in models)]
    return HtmlTable([*columns, *([("difference, 95 %", "")] if has_baseline else [])], rows)


def scores_table(state: SweepState) -> HtmlTable | None:
    """Return all metrics of the finalists on all test sets, with intervals; None before the test."""
    scores = finalist_scores(state)
    rows = [[label, *(format_metric(metrics, name) for name in _METRICS)] for label, metrics in scores.items()]
    columns = [(name if name in _COUNTS else f"{name} %", "") for name in _METRICS]
    return HtmlTable([("", "text"), *columns], rows) if rows else None


def latency_table(state: SweepState) -> HtmlTable | None:
    """Return the latencies of the finalists' ONNX files; None before the test."""
    rows = [
        [FINALIST_LABELS[name], size, *(f"{times[key]:.1f}" for key in ("median_ms", "p90_ms", "images_per_second"))]
        for name, model in state.stages.get("test", {}).get("models", {}).items()
        for size, times in model.get("latency", {}).get("batches", {}).items()
    ]
    names = ("batch", "median ms", "90 % within ms", "images per second")
    return HtmlTable([("", "text"), *((name, "") for name in names)], rows) if rows else None
