"""A sweep as one self-contained HTML page."""

import contextlib
import platform
import time
from collections import Counter
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import yaml

from reid_tune import __version__
from reid_tune.config.experiment import unflatten
from reid_tune.errors import InputError
from reid_tune.files import check_output_file, require_writable, write_atomic
from reid_tune.journal.costs import CostLedger
from reid_tune.journal.event_log import read_events
from reid_tune.journal.journal import EVENTS
from reid_tune.journal.progress import Progress, read_sweep
from reid_tune.journal.state import RunState, SweepState
from reid_tune.report import results, tables
from reid_tune.report.charts import curves_chart, front_chart, history_chart, importances_chart, scatter_chart
from reid_tune.report.confirm import confirm_chart, explain_winner
from reid_tune.report.reproduce import reproduce_commands
from reid_tune.report.sentences import (
    registration_sentence,
    search_end_sentence,
    seed_sentences,
    test_evaluation_sentences,
)
from reid_tune.report.summary import format_interval, test_results, winner_run
from reid_tune.report.svg import COLOURS
from reid_tune.search.importance import MIN_TRIALS, parameter_importances
from reid_tune.search.parameters import searched_parameters
from reid_tune.search.pareto import pareto_front
from reid_tune.tables import format_count, format_percent, format_time

__all__ = ["PAGE", "SPEC", "write_page"]

PAGE, SPEC = "report.html", "spec.yaml"
_LIBRARIES = ("torch", "ray", "optuna", "mlflow")


def write_page(folder: Path, page: Path | None = None) -> Path:
    """Write the page of the sweep in a folder, running or not; returns its path.

    The sweep's whole spec, which the page's commands use, is written beside the log where the folder can be written.

    Args:
        page: Where to; `report.html` in the folder if not given.

    Raises:
        InputError: there is no sweep, its log is damaged, or the page cannot be written.
    """
    state, progress = read_sweep(folder)
    page = check_output_file("--html", page or folder / PAGE)
    require_writable(page)
    spec = yaml.safe_dump(unflatten(state.header.spec), sort_keys=False, allow_unicode=True)
    if not (folder / SPEC).is_file():
        with contextlib.suppress(InputError):
            write_atomic(folder / SPEC, spec)
    write_atomic(page, _render({"spec": spec} | _content(folder, state, progress)))
    return page


def _render(content: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    text = resources.files("reid_tune.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(text).render(content, zip=zip)


def _content(folder: Path, state: SweepState, progress: Progress) -> dict[str, Any]:
    best = winner_run(state)
    pareto = pareto_front(state.trials, state.metric, state.costs) if state.costs else []
    spent = CostLedger(read_events(folder / EVENTS)).by_stage()
    failed = [run for run in state.runs.values() if run.state == "failed"]
    kinds = Counter(run.failure.replace("_", " ") or "unknown" for run in failed)
    return {
        "name": state.header.name,
        "colours": COLOURS,
        "progress": str(progress),
        "begun": format_time(state.header.time),
        "last": format_time(progress.last),
        "made": f"{format_time(time.time())} with {_versions()}",
        "metric": state.metric,
        "done": list(state.stages),
        "counts": _counts(state, progress),
        "best": best,
        "tiles": _tiles(state, best),
        "commands": reproduce_commands(state, best, (folder / SPEC).absolute()) if best else {},
        "compared": results.comparison_table(state),
        "tests": results.test_table(state),
        "protocol": next((metrics.get("protocol", "") for metrics in test_results(state).values()), ""),
        "seeds": seed_sentences(state),
        "looks": list(test_evaluation_sentences(state, folder.absolute())),
        "registered": registration_sentence(state),
        "confirm": _confirm(state),
        "reranked": results.rerank_table(state),
        "settings": state.stages.get("rerank", {}).get("settings"),
        "latencies": results.latency_table(state),
        "device": _device(state),
        "charts": _charts(state, pareto),
        "scatters": _scatters(state),
        "costs": state.costs,
        "trials": tables.trials_table(state, progress, pareto),
        "failures": tables.failures_table(state, folder),
        "kinds": ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
        "stages": tables.stages_table(state, progress, spent),
        "ended": search_end_sentence(state),
        "space": tables.space_table(state, best),
        "facts": tables.settings_table(state, folder),
        "environment": tables.environment_table(state),
        "warnings": state.stages.get("preflight", {}).get("warnings", []),
    }


def _tiles(state: SweepState, best: RunState | None) -> list[tuple[str, str]]:
    """Label and value: the winner by what is known so far, trial 0, and their difference."""
    if best is None:
        return []
    if (found := state.stages.get("confirm")) is None:
        return _searched_tiles(state, best)
    rows = {row["number"]: row for row in found["trials"]}
    where = f"mean {state.metric} of {format_count(found['repeats'], 'repeat')}"
    numbers = [best.number, *([0] if best.number and 0 in rows else [])]
    tiles = [(f"trial {number}, {where}", f"{format_percent(rows[number]['mean'])} %") for number in numbers]
    if difference := rows[best.number]["against_trial0"]:
        mean, around = format_interval(difference).split(" ", 1)
        tiles.append((f"difference, 95 % interval {around}", f"{mean} points"))
    return tiles


def _searched_tiles(state: SweepState, best: RunState) -> list[tuple[str, str]]:
    where, top = f"{state.metric} on the hold-out", best.last(state.metric) or 0.0
    tiles = [(f"trial {best.number}, {where}", f"{format_percent(top)} %")]
    zero = next((trial.last(state.metric) for trial in state.finished() if trial.number == 0), None)
    if best.number and zero is not None:
        tiles += [
            (f"trial 0, {where}", f"{format_percent(zero)} %"),
            ("difference", f"{100 * (top - zero):+.1f} points"),
        ]
    return tiles


def _confirm(state: SweepState) -> dict[str, Any] | None:
    if (found := state.stages.get("confirm")) is None:
        return None
    return {
        "chart": confirm_chart(found, state.metric),
        "table": results.confirm_table(found, state.metric),
        "why": explain_winner(found, state.costs),
        "repeats": found["repeats"],
    }


def _device(state: SweepState) -> str:
    """What latencies were measured on."""
    for model in state.stages.get("test", {}).get("models", {}).values():
        if found := model.get("latency"):
            return f"{found['device']}, {found['threads']} threads"
    return ""


def _counts(state: SweepState, progress: Progress) -> str:
    words = tables.run_states(state, progress)
    states = Counter(words[trial.name] for trial in state.trials)
    found = ", ".join(f"{count} {name}" for name, count in states.items())
    budget = state.header.sweep["budget"]["trials"]
    return f"{format_count(len(state.trials), 'trial')} of {budget}" + (f" ({found})" if found else "")


def _charts(state: SweepState, pareto: list[RunState]) -> list[tuple[str, str]]:
    """Caption and SVG of each chart of the search; no SVG where trials are too few."""
    metric = state.metric
    if not any(trial.epochs for trial in state.trials):
        return []
    rungs = state.stages.get("preflight", {}).get("rungs", [])
    shares = parameter_importances(state, metric)
    curves = f"The best trials and trial 0 by epoch{'; dotted: ASHA compares' if rungs else ''}"
    too_few = f"Importances need {MIN_TRIALS} full-length trials of unlike parameters; fewer would show noise."
    fronts = [("The Pareto front (ringed, with numbers)", front_chart(state, pareto))] if pareto else []
    return [
        *fronts,
        ("Each trial, and the best full-length one so far (line)", history_chart(state, metric)),
        (curves, curves_chart(state, metric, rungs)),
        (
            "Importances (PED-ANOVA)",
            importances_chart(shares, {key.key: key.label for key in searched_parameters(state)}),
        )
        if shares
        else (too_few, ""),
    ]


def _scatters(state: SweepState) -> list[tuple[str, str]]:
    """Caption and SVG of the score over each searched key."""
    if not any(trial.epochs for trial in state.trials):
        return []
    return [(key.key, scatter_chart(key, state, state.metric)) for key in searched_parameters(state)]


def _versions() -> str:
    libraries = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    return ", ".join([f"reid-tune {__version__}", f"Python {platform.python_version()}", *libraries])
