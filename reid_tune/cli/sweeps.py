"""Commands about sweeps, and the rest."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from reid_tune import __version__
from reid_tune.cli.common import Format, FormatOption, app, show

__all__: list[str] = []


class Stage(StrEnum):
    """Stages of a sweep, in order."""

    preflight = "preflight"
    search = "search"
    refit = "refit"
    export = "export"
    test = "test"
    register = "register"


class Resume(StrEnum):
    """What to do with a sweep that exists."""

    never = "never"
    auto = "auto"


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="Search-space file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value overrides the spec, sweep.KEY=value the file.", metavar="[KEY=VALUE]..."),
    ] = None,
    resume: Annotated[
        Resume, typer.Option(help="never refuses a name that exists; auto begins or continues.")
    ] = Resume.never,
    until: Annotated[Stage, typer.Option(help="The last stage to run.")] = Stage.register,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
) -> None:
    """Search, refit the best, export, test once, register."""
    from reid_tune.sweep.file import load_sweep

    loaded = load_sweep(file, overrides or [])
    from reid_tune.sweep.drive import plan_sweep, run_sweep
    from reid_tune.sweep.resume import resume_command

    if dry_run:
        show(plan_sweep(loaded, until.value), Format.yaml, {})
        return
    try:
        state = run_sweep(loaded, resume=resume.value, until=until.value)
    except KeyboardInterrupt:
        typer.echo(f"stopped; continue with: {resume_command()}", err=True)
        raise
    _print_sweep(state, loaded.file.storage)


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Name of a sweep below ./runs.")],
    format: FormatOption = Format.table,
    storage: Annotated[str, typer.Option(help="Folder of the sweeps.")] = "runs",
) -> None:
    """Show what a sweep has found, running or not."""
    from reid_tune.sweep.report import load_state
    from reid_tune.sweep.report import report as make_report

    state = load_state(name, storage)
    if format is Format.table:
        _print_sweep(state, storage)
    else:
        show(make_report(state), format, {})


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Open MLflow's pages on this folder's store (or MLFLOW_TRACKING_URI)."""
    from reid_tune.tracking.store import tracking_uri
    from reid_tune.tracking.ui import run_ui

    raise typer.Exit(run_ui(tracking_uri(), port))


@app.command("version")
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _print_sweep(state: Any, storage: str) -> None:
    from reid_tune.sweep.report import finals_table, leaderboard
    from reid_tune.tables import print_table

    for table in (leaderboard(state), finals_table(state)):
        if table is not None:
            print_table(table)
    registered = state.stages.get("register")
    if registered:
        typer.echo(f"registered: models:/{registered['model']}@{registered['alias']} (version {registered['version']})")
        typer.echo(f"model: {Path(storage) / state.header['name'] / 'export' / 'winner.onnx'}")
