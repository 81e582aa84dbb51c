"""A sweep as one self-contained HTML page."""

import contextlib
import platform
import time
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import yaml

from reid_tune import __version__
from reid_tune.errors import InputError
from reid_tune.files import write_atomic
from reid_tune.spec.experiment import unflatten
from reid_tune.sweep.progress import Progress, read_sweep
from reid_tune.sweep.report import tables
from reid_tune.sweep.report.repeat import repeat_commands
from reid_tune.sweep.report.searched import FEWEST, importances, searched
from reid_tune.sweep.report.summary import finals
from reid_tune.sweep.state import RunState, SweepState
from reid_tune.tables import percent
from reid_tune.tasks.outputs import make_room, output_file

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
    page = output_file("--html", page or folder / PAGE)
    make_room(page)
    spec = yaml.safe_dump(unflatten(state.header["spec"]), sort_keys=False, allow_unicode=True)
    if not (folder / SPEC).is_file():
        with contextlib.suppress(InputError):
            write_atomic(folder / SPEC, spec)
    write_atomic(page, _render({"spec": spec} | _content(folder, state, progress)))
    return page


def _render(content: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    text = resources.files("reid_tune.sweep.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(text).render(content, zip=zip)


def _content(folder: Path, state: SweepState, progress: Progress) -> dict[str, Any]:
    from reid_tune.sweep.report.charts import COLOURS

    metric = state.metric
    best = next(iter(state.finished()), None)
    return {
        "name": state.header["name"],
        "colours": COLOURS,
        "progress": str(progress),
        "begun": tables.moment(state.header["time"]),
        "last": tables.moment(progress.last),
        "made": f"{tables.moment(time.time())} with {_versions()}",
        "metric": metric,
        "search_done": "search" in state.stages,
        "counts": _counts(state, progress),
        "best": best,
        "commands": repeat_commands(state, best, (folder / SPEC).absolute()) if best else {},
        "tests": tables.tests(state),
        "protocol": next((metrics.get("protocol", "") for metrics in finals(state).values()), ""),
        "registered": state.stages.get("register"),
        "charts": _charts(state, metric),
        "trials": tables.trials(state, progress),
        "failures": tables.failures(state),
        "stages": tables.stages(progress),
        "space": tables.space(state, best),
        "facts": tables.facts(state, folder),
        "warnings": state.stages.get("preflight", {}).get("warnings", []),
        **_scores(state, metric, best),
    }


def _scores(state: SweepState, metric: str, best: RunState | None) -> dict[str, str]:
    """The objectives of the best trial and of trial 0, if that is another full-length one, and their difference."""
    zero = next((trial.last(metric) for trial in state.finished() if trial.number == 0), None)
    top = best.last(metric) if best else None
    if best is None or best.number == 0 or zero is None or top is None:
        return {"top": percent(top), "zero": "", "gain": ""}
    return {"top": percent(top), "zero": percent(zero), "gain": f"{100 * (top - zero):+.1f}"}


def _counts(state: SweepState, progress: Progress) -> str:
    words = tables.states(state, progress)
    states = [words[trial.name] for trial in state.trials]
    found = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))
    return f"{len(states)} trials of {state.header['sweep']['budget']['trials']}" + (f" ({found})" if found else "")


def _charts(state: SweepState, metric: str) -> list[tuple[str, str]]:
    """Caption and SVG of each chart; no SVG where trials are too few."""
    from reid_tune.sweep.report.charts import curves_chart, history_chart, importances_chart, scatter_chart

    if not any(trial.epochs for trial in state.trials):
        return []
    keys = searched(state)
    rungs = state.stages.get("preflight", {}).get("rungs", [])
    shares = importances(state, metric)
    curves = f"The best trials and trial 0 by epoch{'; dotted: ASHA compares' if rungs else ''}"
    too_few = f"Importances need {FEWEST} full-length trials of unlike parameters; fewer would show noise."
    return [
        ("Each trial, and the best full-length one so far (line)", history_chart(state, metric)),
        (curves, curves_chart(state, metric, rungs)),
        ("Importances (PED-ANOVA)", importances_chart(shares, {key.key: key.label for key in keys}))
        if shares
        else (too_few, ""),
        *((key.key, scatter_chart(key, state, metric)) for key in keys),
    ]


def _versions() -> str:
    libraries = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    return ", ".join([f"reid-tune {__version__}", f"Python {platform.python_version()}", *libraries])
