"""The tables of a sweep's page: what it is, its trials and its costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_tune.journal.costs import Cost
from reid_tune.journal.progress import Progress
from reid_tune.journal.state import STAGES, RunState, SweepState
from reid_tune.report.reproduce import inline_yaml
from reid_tune.report.summary import format_cost, format_value, ranked_trials, trial_label, winner_number
from reid_tune.search.parameters import searched_parameters
from reid_tune.storage.download_cache import display_path
from reid_tune.tables import format_duration, format_percent, format_time

__all__ = [
    "HtmlTable",
    "environment_table",
    "settings_table",
    "failures_table",
    "space_table",
    "stages_table",
    "run_states",
    "trials_table",
]


@dataclass(frozen=True)
class HtmlTable:
    """A table of the page.

    Attributes:
        heads: Name and kind of each column: `text` for words, `name` for words that may break, `wide` for sentences,
            nothing for numbers.
        best: The row to stress.
    """

    heads: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    best: int | None = None


def run_states(state: SweepState, progress: Progress) -> dict[str, str]:
    """The state of each run; one that its driver has left behind does not run."""
    left = progress.state in ("interrupted", "ended", "finished")
    return {name: "interrupted" if left and run.state == "running" else run.state for name, run in state.runs.items()}


def trials_table(state: SweepState, progress: Progress, front: Sequence[RunState] = ()) -> HtmlTable:
    """All trials, the best first; those of the Pareto front are marked."""
    metric, keys, words = state.metric, searched_parameters(state), run_states(state, progress)
    heads = [("trial", "text"), ("state", "text"), ("epoch", ""), (f"{metric} %", "")]
    heads += [(cost, "") for cost in state.costs] + [("front", "text")] * bool(front)
    heads += [*((key.label, "") for key in keys), ("from", "text"), ("reason", "wide")]
    rows, best = list[list[str]](), None
    for trial in ranked_trials(state):
        if trial.number == winner_number(state):
            best = len(rows)
        value = trial.last(metric)
        own = [
            trial_label(trial.number),
            words[trial.name],
            str(trial.epoch),
            "" if value is None else format_percent(value),
        ]
        own += [format_cost(trial, cost) for cost in state.costs] + ["yes" * (trial in front)] * bool(front)
        values = [format_value(key.of([trial]).get(trial.number, "")) for key in keys]
        rows.append([*own, *values, trial.origin, trial.reason])
    return HtmlTable(heads, rows, best)


def failures_table(state: SweepState, folder: Path) -> HtmlTable | None:
    """The runs that failed, or were started again behind a failure: why, and their logs; None without any."""
    rows = [
        [run.name, run.state, _kinds(run), str(run.epoch), str(run.attempts), run.reason, _log(folder, run)]
        for run in state.runs.values()
        if run.state == "failed" or run.retries
    ]
    heads = [("run", "text"), ("state", "text"), ("failures", "text"), ("epoch", ""), ("attempts", "")]
    return HtmlTable([*heads, ("reason", "wide"), ("log", "wide")], rows) if rows else None


def _kinds(run: RunState) -> str:
    kinds = [*run.retries, *([run.failure] if run.failure else [])]
    return ", ".join(f"{kinds.count(kind)} {kind.replace('_', ' ')}" for kind in dict.fromkeys(kinds))


def _log(folder: Path, run: RunState) -> str:
    path = Path(run.name) / "log.txt"
    return str(path) if (folder / path).is_file() else ""


def stages_table(state: SweepState, progress: Progress, spent: Mapping[str, Cost]) -> HtmlTable:
    """The stages: what they took of time, CPUs and GPUs against the plan, and when they began; all, and the budget."""
    found = {stage.name: stage for stage in progress.stages}
    plan: dict[str, Any] = state.stages.get("preflight", {})
    planned: dict[str, Any] = plan.get("stages", {})
    units = ["hours", "cpu_hours", *(["gpu_hours"] if any(cost.gpu_hours for cost in spent.values()) else [])]
    rows = []
    for name in dict.fromkeys([*STAGES, *found, *spent]):
        own, stage = planned.get(name, {}), found.get(name)
        word = "not begun" if stage is None else "done" if stage.done else "begun"
        costs = _costs(spent.get(name) if stage else None, own, units)
        rows.append([name, word, *costs, str(own.get("runs", "")), format_time(stage.started) if stage else ""])
    rows.append(["all", "", *_costs(sum(spent.values(), Cost()), plan, units), "", ""])
    limits = [_hours(unit, state.header["sweep"]["budget"].get(unit)) for unit in units]
    if any(limits):
        rows.append(["budget", "", *(cell for limit in limits for cell in (limit, "")), "", ""])
    names = {"hours": "took", "cpu_hours": "CPU-hours", "gpu_hours": "GPU-hours"}
    heads = [(head, "") for unit in units for head in (names[unit], "planned")]
    last = [("planned runs", ""), ("begun", "text")]
    return HtmlTable([("stage", "text"), ("state", "text"), *heads, *last], rows)


def _costs(spent: Cost | None, planned: Mapping[str, Any], units: Sequence[str]) -> Iterable[str]:
    for unit in units:
        yield _hours(unit, getattr(spent, unit) if spent else None)
        yield _hours(unit, planned.get(unit))


def _hours(unit: str, hours: float | None) -> str:
    if hours is None:
        return ""
    return format_duration(3600 * hours) if unit == "hours" else f"{hours:.2f}"


def space_table(state: SweepState, best: RunState | None) -> HtmlTable:
    """The searched keys with their ranges."""
    heads = [("searched", "text"), ("range", "text"), ("spec", "")] + [("best trial", "")] * (best is not None)
    rows = []
    for key in searched_parameters(state):
        own = [format_value(key.of([best]).get(best.number, ""))] if best else []
        rows.append([key.key, inline_yaml(key.range), format_value(key.base), *own])
    return HtmlTable(heads, rows)


def settings_table(state: SweepState, folder: Path) -> HtmlTable:
    """What the sweep file says, and the data."""
    sweep, spec = state.header["sweep"], state.header["spec"]
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


def environment_table(state: SweepState) -> HtmlTable | None:
    """Code, libraries, machine, data and weights of the last driver; None where nobody has recorded them."""
    if not (found := state.environment):
        return None
    rows = [[name, str(version)] for name, version in found.get("packages", {}).items() if version]
    if commit := found.get("commit"):
        rows.append(["commit", commit + (", with changes" if found.get("dirty") else "")])
    machine = found.get("machine", {})
    rows += [[name, inline_yaml(value)] for name, value in machine.items() if value]
    if data := found.get("data"):
        rows.append(["training data", f"fingerprint {data['fingerprint']}"])
    if weights := found.get("weights"):
        rows.append(["pretrained weights", f"{weights['file']}, sha256 {weights['sha256']}"])
    return HtmlTable([("of the last driver", "text"), ("", "wide")], rows)


def _data(state: SweepState, plan: dict[str, Any]) -> Iterable[str]:
    if "training_images" in plan:
        yield f"{plan['training_images']} images of {plan['training_identities']} identities to train with"
        yield f"{plan['held_out_identities']} identities held out"
    metrics = [metrics for trial in state.trials for metrics in trial.epochs.values() if "queries" in metrics]
    if metrics:
        yield f"hold-out: {metrics[-1]['queries']} queries, {metrics[-1]['gallery']} gallery images"
