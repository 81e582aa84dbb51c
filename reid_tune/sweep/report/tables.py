"""The tables of a sweep's page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reid_tune.sweep.file import STAGES
from reid_tune.sweep.progress import Progress
from reid_tune.sweep.report.repeat import inline
from reid_tune.sweep.report.searched import searched
from reid_tune.sweep.report.summary import finals, ordered, short
from reid_tune.sweep.state import RunState, SweepState
from reid_tune.tables import cell, percent

__all__ = ["Grid", "duration", "facts", "failures", "moment", "space", "stages", "states", "tests", "trials"]

_METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery")
_COUNTS = _METRICS[-2:]


@dataclass(frozen=True)
class Grid:
    """A table of the page.

    Attributes:
        heads: Name and kind of each column: `text` for words, `wide` for sentences, nothing for numbers.
        best: The row to stress.
    """

    heads: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    best: int | None = None


def tests(state: SweepState) -> Grid | None:
    """The finalists on the test folders, with intervals; None before the test."""
    rows = [[label, *(cell(metrics, name) for name in _METRICS)] for label, metrics in finals(state).items()]
    heads = [(name if name in _COUNTS else f"{name} %", "") for name in _METRICS]
    return Grid([("", "text"), *heads], rows) if rows else None


def states(state: SweepState, progress: Progress) -> dict[str, str]:
    """The state of each run; one that its driver has left behind does not run."""
    left = progress.state in ("interrupted", "ended", "finished")
    return {name: "interrupted" if left and run.state == "running" else run.state for name, run in state.runs.items()}


def trials(state: SweepState, progress: Progress) -> Grid:
    """All trials, the best first."""
    metric, keys, words = state.metric, searched(state), states(state, progress)
    heads = [("trial", "text"), ("state", "text"), ("epoch", ""), (f"{metric} %", "")]
    rows = []
    for trial in ordered(state):
        value, name = trial.last(metric), f"{trial.number} (spec)" if trial.number == 0 else str(trial.number)
        own = [name, words[trial.name], str(trial.epoch), "" if value is None else percent(value)]
        rows.append([*own, *(short(key.of([trial]).get(trial.number, "")) for key in keys), trial.reason])
    heads += [(key.label, "") for key in keys]
    return Grid([*heads, ("reason", "wide")], rows, 0 if state.finished() else None)


def failures(state: SweepState) -> Grid | None:
    """The runs that failed, and why; None without any."""
    failed = [run for run in state.runs.values() if run.state == "failed"]
    rows = [[run.name, str(run.epoch), str(run.attempts), run.reason] for run in failed]
    return Grid([("run", "text"), ("epoch", ""), ("attempts", ""), ("reason", "wide")], rows) if rows else None


def stages(progress: Progress) -> Grid:
    """The stages, when they began and what they took."""
    found = {stage.name: stage for stage in progress.stages}
    rows = []
    for name in dict.fromkeys([*STAGES, *found]):
        stage = found.get(name)
        if stage is None:
            rows.append([name, "not begun", "", ""])
        else:
            rows.append([name, "done" if stage.done else "begun", moment(stage.begun), duration(stage.seconds)])
    return Grid([("stage", "text"), ("state", "text"), ("begun", "text"), ("took", "")], rows)


def space(state: SweepState, best: RunState | None) -> Grid:
    """The searched keys with their ranges."""
    heads = [("searched", "text"), ("range", "text"), ("spec", "")] + [("best trial", "")] * (best is not None)
    rows = []
    for key in searched(state):
        own = [short(key.of([best]).get(best.number, ""))] if best else []
        rows.append([key.key, inline(key.range), short(key.base), *own])
    return Grid(heads, rows)


def facts(state: SweepState, folder: Path) -> Grid:
    """What the sweep file says, the data and the pretrained weights."""
    sweep, spec = state.header["sweep"], state.header["spec"]
    plan = state.stages.get("preflight", {})
    rows = [["folder", str(folder.absolute())]]
    rows += [[key, inline(value)] for key, value in sweep.items() if key not in ("name", "space") and value != []]
    if plan.get("rungs"):
        rows.append(["rungs", "epochs " + ", ".join(map(str, plan["rungs"]))])
    rows.append(["train.seed", inline(spec.get("train.seed"))])
    rows += [["data", line] for line in _data(state, plan)]
    folders = ("train_dataset_dir", "query_dataset_dir", "test_dataset_dir")
    rows += [[name, inline(spec[f"dataset.{name}"])] for name in folders if spec.get(f"dataset.{name}")]
    if pretrained := plan.get("pretrained"):
        rows.append(["pretrained", f"{pretrained['file']}, sha256 {pretrained['sha256']}"])
    return Grid([("setting", "text"), ("value", "wide")], rows)


def _data(state: SweepState, plan: dict[str, Any]) -> Iterable[str]:
    if "training_images" in plan:
        yield f"{plan['training_images']} images of {plan['training_identities']} identities to train with"
        yield f"{plan['held_out_identities']} identities held out"
    metrics = [metrics for trial in state.trials for metrics in trial.epochs.values() if "queries" in metrics]
    if metrics:
        yield f"hold-out: {metrics[-1]['queries']} queries, {metrics[-1]['gallery']} gallery images"


def moment(time: float) -> str:
    """A time in seconds since the epoch, for people."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M} UTC"


def duration(seconds: float) -> str:
    """Seconds, for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"
