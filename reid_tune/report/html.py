"""A sweep as one self-contained HTML page."""

import contextlib
import platform
import time
from collections import Counter
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from reid_tune import __version__
from reid_tune.errors import InputError
from reid_tune.files import check_output_file, require_writable, write_atomic
from reid_tune.journal.costs import Cost, CostLedger
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.progress import Progress, read_sweep
from reid_tune.journal.state import RunState, SweepState
from reid_tune.report import charts, html_tables
from reid_tune.report.answers import answer_questions
from reid_tune.report.contour import contour_chart
from reid_tune.report.importances import importances_caption, importances_chart
from reid_tune.report.parallel import parallel_chart, varied_parameters
from reid_tune.report.reproduce import SPEC, reproduce_commands, spec_yaml, write_spec
from reid_tune.report.sentences import (
    confirm_notes,
    forecast_sentence,
    registration_sentence,
    search_end_sentence,
    space_change_sentences,
)
from reid_tune.report.stages_table import stages_table
from reid_tune.report.summary import SearchAnalysis, baseline_score, finalist_scores, run_states, winner_run
from reid_tune.report.svg import COLOURS
from reid_tune.report.test_set_sentences import evaluation_count_sentences, pooled_sentence, seed_sentences
from reid_tune.search.importance import Importances
from reid_tune.search.parameters import labels_of_keys, searched_parameters
from reid_tune.search.pareto import pareto_front
from reid_tune.search.prediction_grid import predict_grid
from reid_tune.tables import format_count, format_percent, format_time

__all__ = ["PAGE", "write_page"]

PAGE = "report.html"
_LIBRARIES = ("torch", "ray", "optuna", "mlflow")


def write_page(folder: Path, page: Path | None = None, analysis: SearchAnalysis | None = None) -> Path:
    """Write the page of the sweep in a folder, running or not; return its path.

    The sweep's whole spec, which the page's commands use, is written into the folder too if the folder is writable.

    Args:
        page: File to write; `report.html` in the folder if None.
        analysis: The analysis of the sweep if it exists already.

    Raises:
        InputError: The folder holds no sweep, its log is damaged, or the page cannot be written.
    """
    state, progress = read_sweep(folder)
    page = check_output_file("--html", page or folder / PAGE)
    require_writable(page)
    with contextlib.suppress(InputError):
        write_spec(folder, state)
    write_atomic(page, _render(_content(folder, progress, analysis or SearchAnalysis(state))))
    return page


def _render(content: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    text = resources.files("reid_tune.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(text).render(content, zip=zip)


def _content(folder: Path, progress: Progress, analysis: SearchAnalysis) -> dict[str, Any]:
    """Return the variables of the template."""
    state = analysis.state
    best = winner_run(state)
    front = pareto_front(state.trials, state.metric, state.costs) if state.costs else []
    spent = CostLedger(read_events(folder / EVENTS)).by_stage()
    return {
        "name": state.header.name,
        "colours": COLOURS,
        "progress": str(progress),
        "started": format_time(state.header.time),
        "last_event": format_time(progress.last),
        "created": f"{format_time(time.time())} with {_versions()}",
        "metric": state.metric,
        "stages_done": list(state.stages),
        "counts": _trial_counts(state, progress),
        "best": best,
        "answers": answer_questions(state, sum(spent.values(), Cost())),
        "tiles": _tiles(state, best),
        "commands": reproduce_commands(state, best, (folder / SPEC).absolute()) if best else {},
        "costs": state.costs,
        "failure_counts": _failure_counts(state),
        "search_end": search_end_sentence(state),
        "forecast": forecast_sentence(forecast, state.metric) if (forecast := analysis.forecast) else "",
        "confirm": _confirm(state),
        "warnings": state.stages.get("preflight", {}).get("warnings", []),
        "spec": spec_yaml(state),
        "charts": _charts(analysis, front, best),
        "parallel": _parallel(analysis),
        "scatters": _scatters(state),
        "trials_table": html_tables.trials_table(state, progress, front),
        "failures_table": html_tables.failures_table(state, folder),
        "stages_table": stages_table(state, progress, spent),
        "space_changes": list(space_change_sentences(state)),
        "space_table": html_tables.space_table(state, best),
        "settings_table": html_tables.settings_table(state, folder),
        "environment_table": html_tables.environment_table(state),
    } | _test_content(folder, state)


def _test_content(folder: Path, state: SweepState) -> dict[str, Any]:
    """Return the variables of the template that show the stages `rerank`, `test` and `register`."""
    return {
        "comparison_table": html_tables.comparison_table(state),
        "scores_table": html_tables.scores_table(state),
        "protocol": next((metrics.get("protocol", "") for metrics in finalist_scores(state).values()), ""),
        "seeds": [*filter(None, [pooled_sentence(state)]), *seed_sentences(state)],
        "evaluation_counts": list(evaluation_count_sentences(state, folder.absolute())),
        "registered": registration_sentence(state),
        "rerank_table": html_tables.rerank_table(state),
        "rerank_settings": state.stages.get("rerank", {}).get("settings"),
        "latency_table": html_tables.latency_table(state),
        "latency_device": _latency_device(state),
    }


def _failure_counts(state: SweepState) -> str:
    failed = [run for run in state.runs.values() if run.state == "failed"]
    kinds = Counter(run.failure.replace("_", " ") or "unknown" for run in failed)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _trial_counts(state: SweepState, progress: Progress) -> str:
    states = run_states(state, progress)
    counts = Counter(states[trial.name] for trial in state.trials)
    by_state = ", ".join(f"{count} {name}" for name, count in counts.items())
    budget = state.header.sweep["budget"]["trials"]
    return f"{format_count(len(state.trials), 'trial')} of {budget}" + (f" ({by_state})" if by_state else "")


def _tiles(state: SweepState, best: RunState | None) -> list[tuple[str, str]]:
    """Return label and value of the best trial and of trial 0."""
    if best is None:
        return []
    if (confirm_result := state.stages.get("confirm")) is None:
        return _search_tiles(state, best)
    rows = {row["number"]: row for row in confirm_result["trials"]}
    score = f"mean {state.metric} of {format_count(confirm_result['repeats'], 'repeat')}"
    numbers = [best.number, *([0] if best.number and 0 in rows else [])]
    return [(f"trial {number}, {score}", f"{format_percent(rows[number]['mean'])} %") for number in numbers]


def _search_tiles(state: SweepState, best: RunState) -> list[tuple[str, str]]:
    label, best_score = f"{state.metric} on the validation split", best.last(state.metric) or 0.0
    tiles = [(f"trial {best.number}, {label}", f"{format_percent(best_score)} %")]
    baseline = baseline_score(state)
    if best.number and baseline is not None:
        tiles.append((f"trial 0, {label}", f"{format_percent(baseline)} %"))
    return tiles


def _confirm(state: SweepState) -> dict[str, Any] | None:
    if (result := state.stages.get("confirm")) is None:
        return None
    return {
        "chart": charts.confirm_chart(result, state.metric),
        "table": html_tables.confirm_table(result, state.metric),
        "notes": confirm_notes(result),
        "repeats": result["repeats"],
    }


def _latency_device(state: SweepState) -> str:
    for model in state.stages.get("test", {}).get("models", {}).values():
        if latency := model.get("latency"):
            return f"{latency['device']}, {latency['threads']} threads"
    return ""


def _charts(analysis: SearchAnalysis, front: list[RunState], best: RunState | None) -> list[tuple[str, str]]:
    """Return caption and SVG of each chart of the search; the SVG is empty where there are too few trials."""
    state, metric = analysis.state, analysis.state.metric
    if not any(trial.epochs for trial in state.trials):
        return []
    rungs = state.stages.get("preflight", {}).get("rungs", [])
    history = ("Each trial, and the best full-length one so far (line)", charts.history_chart(state, metric))
    caption = f"The best trials and trial 0 by epoch{'; dotted: ASHA rungs' if rungs else ''}"
    drawn = [history, (caption, charts.curves_chart(state, metric, rungs))]
    importances = analysis.importances
    shares = importances_chart(importances, labels_of_keys(state)) if importances else ""
    drawn.append((importances_caption(importances, metric), shares))
    if best and importances:
        drawn += _contour(state, importances, best)
    if front:
        drawn.insert(0, ("The Pareto front (ringed, with numbers)", charts.front_chart(state, front)))
    return drawn


def _parallel(analysis: SearchAnalysis) -> str:
    state, importances = analysis.state, analysis.importances
    if not any(trial.last(state.metric) is not None for trial in state.trials) or not varied_parameters(state):
        return ""
    return parallel_chart(state, importances.totals if importances else {})


def _contour(state: SweepState, importances: Importances, best: RunState) -> Iterator[tuple[str, str]]:
    """Yield caption and SVG of the predictions over the two keys that are the strongest together, if there are any."""
    grid = predict_grid(state, [pair.keys for pair in importances.pairs], best)
    if grid and (scores := grid.scores[np.isfinite(grid.scores)]).size:
        low, high = format_percent(float(scores.min())), format_percent(float(scores.max()))
        caption = f"Predicted {state.metric} at full length, {low} % (faint) to {high} %, around trial {best.number}"
        yield caption, contour_chart(state, grid, labels_of_keys(state))


def _scatters(state: SweepState) -> list[tuple[str, str]]:
    """Return caption and SVG of the score over each searched parameter."""
    if not any(trial.epochs for trial in state.trials):
        return []
    parameters = searched_parameters(state)
    return [(parameter.key, charts.scatter_chart(parameter, state, state.metric)) for parameter in parameters]


def _versions() -> str:
    libraries = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    return ", ".join([f"reid-tune {__version__}", f"Python {platform.python_version()}", *libraries])
