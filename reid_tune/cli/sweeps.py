"""Commands about sweeps, and the rest."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from reid_tune import __version__
from reid_tune.cli.common import Format, FormatOption, app, show
from reid_tune.errors import InputError

__all__: list[str] = []

Storage = Annotated[str, typer.Option(help="Folder of the sweeps.")]


class Stage(StrEnum):
    """Stages of a sweep, in order."""

    preflight = "preflight"
    search = "search"
    confirm = "confirm"
    rerank = "rerank"
    refit = "refit"
    export = "export"
    test = "test"
    register = "register"


class Resume(StrEnum):
    """What to do with a sweep that exists."""

    never = "never"
    auto = "auto"


class _Sweep(TyperCommand):
    """`sweep FILE`, and `sweep reproduce RUN`, which is a command of its own."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> Any:
        if args[:1] == ["reproduce"]:
            command = typer.main.get_command(_runs)
            return command.make_context(f"{info_name} reproduce", args[1:], *rest, **more)
        return super().make_context(info_name, args, *rest, **more)


_runs = typer.Typer(add_completion=False, context_settings=app.info.context_settings)


@app.command(cls=_Sweep, epilog="reid-tune sweep reproduce NAME/7 trains a run of a sweep again, see its --help.")
def sweep(
    file: Annotated[Path, typer.Argument(help="Search-space file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value overrides the spec, sweep.KEY=value the file.", metavar="[KEY=VALUE]..."),
    ] = None,
    resume: Annotated[
        Resume, typer.Option(help="never refuses a name that exists; auto begins or continues.")
    ] = Resume.never,
    start: Annotated[Stage | None, typer.Option("--from", help="Run this stage and those behind it again.")] = None,
    until: Annotated[Stage, typer.Option(help="The last stage to run.")] = Stage.register,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Run every stage on a handful of the images, and leave nothing behind.")
    ] = False,
) -> None:
    """Search, confirm the best, refit, export, test once, register."""
    if smoke:
        if dry_run or start or resume is not Resume.never:
            raise InputError("--smoke is a sweep of its own: leave out --dry-run, --from and --resume.")
        from reid_tune.sweep.smoke import smoke as run_smoke

        typer.echo(run_smoke(file, overrides or [], until.value))
        return
    from reid_tune.sweep.file import load_sweep

    loaded = load_sweep(file, overrides or [])
    from reid_tune.sweep.drive import plan_sweep, run_sweep
    from reid_tune.sweep.report.page import PAGE
    from reid_tune.sweep.resume import resume_command

    if dry_run:
        show(plan_sweep(loaded, until.value), Format.yaml, {})
        return
    try:
        state = run_sweep(loaded, resume=resume.value, until=until.value, start=start.value if start else None)
    except KeyboardInterrupt:
        typer.echo(f"stopped; continue with: {resume_command()}", err=True)
        raise
    _print_sweep(state, Path(loaded.file.storage) / loaded.file.name)
    if (page := Path(loaded.file.storage) / loaded.file.name / PAGE).is_file():
        typer.echo(f"page: {page}")


@_runs.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="NAME/7 for a trial, NAME/confirm/0007-2, NAME/refit/winner.")],
    run: Annotated[bool, typer.Option("--run", help="Train it, and compare the metrics of its last epoch.")] = False,
    storage: Storage = "runs",
    format: FormatOption = Format.table,
) -> None:
    """Print the command that trains a run of a sweep again.

    With train.deterministic and one worker the same machine gives the same digits; where --run finds others, the exit
    status is 1.
    """
    from reid_tune.sweep.report.repeat import differences, find_run, repeat, train_again, write_spec

    state, found, folder = find_run(name, storage)
    again = repeat(state, found, write_spec(folder, state))
    if not run:
        typer.echo(again)
        return
    if not found.epochs:
        raise InputError(f"{name} has reported no epoch: there is nothing to compare with.")
    typer.echo(again, err=True)
    metrics = differences(found, train_again(again))
    equal = all(row["equal"] for row in metrics.values())
    if format is Format.table:
        _print_differences(metrics)
        typer.echo(f"epoch {found.epoch}: {'equal' if equal else 'not equal'}")
    else:
        show({"epoch": found.epoch, "equal": equal, "metrics": metrics}, format, {})
    if not again.exact and not equal:
        typer.echo("equal digits can be expected of one worker with train.deterministic alone.", err=True)
    raise typer.Exit(1 if again.exact and not equal else 0)


@app.command()
def stop(
    name: Annotated[str, typer.Argument(help="NAME/7 for trial 7 of the sweep NAME.")],
    storage: Storage = "runs",
) -> None:
    """End a trial of a search; the sweep goes on without it."""
    from reid_tune.sweep.report.logs import split_name
    from reid_tune.sweep.report.summary import sweep_folder
    from reid_tune.sweep.requests import ask_to_stop

    sweep, run = split_name(name)
    typer.echo(ask_to_stop(sweep_folder(sweep, storage), run))


@app.command()
def enqueue(
    name: Annotated[str, typer.Argument(help="Name of a sweep below the storage.")],
    values: Annotated[list[str], typer.Argument(help="Keys of its space.", metavar="KEY=VALUE...")],
    storage: Storage = "runs",
) -> None:
    """Give the next trial of a search these values; keys of the space that are left out have the spec's."""
    from reid_tune.sweep.report.summary import sweep_folder
    from reid_tune.sweep.requests import ask_to_enqueue

    typer.echo(ask_to_enqueue(sweep_folder(name, storage), values))


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Name of a sweep below the storage.")],
    format: FormatOption = Format.table,
    html: Annotated[
        Path | None, typer.Option(help="Where to write the page; a table comes with NAME/report.html.")
    ] = None,
    storage: Storage = "runs",
) -> None:
    """Show what a sweep has found, running or not, and write it as a page."""
    from reid_tune.events.log import read_events
    from reid_tune.sweep.budget import Ledger
    from reid_tune.sweep.journal import EVENTS
    from reid_tune.sweep.report.page import write_page
    from reid_tune.sweep.report.summary import load_state, sweep_folder
    from reid_tune.sweep.report.summary import report as make_report

    state = load_state(name, storage)
    folder = sweep_folder(name, storage)
    if html is not None:
        typer.echo(f"page: {write_page(folder, html)}", err=True)
    if format is not Format.table:
        show(make_report(state, Ledger(read_events(folder / EVENTS)).by_stage()), format, {})
        return
    _print_sweep(state, folder)
    if html is None:
        try:
            typer.echo(f"page: {write_page(folder)}")
        except InputError as error:
            typer.echo(f"no page: {error}", err=True)


@app.command()
def sweeps(storage: Storage = "runs", format: FormatOption = Format.table) -> None:
    """List all sweeps: state, trials, best value, age."""
    from reid_tune.sweep.report.overview import overview, overview_table
    from reid_tune.tables import print_table

    lines = overview(Path(storage))
    if format is Format.table:
        print_table(overview_table(lines))
    else:
        show(lines, format, {})


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="NAME/7 for a trial, NAME/refit/winner, or NAME for all last lines.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    storage: Storage = "runs",
) -> None:
    """Show what a trial has printed."""
    from reid_tune.sweep.report.logs import logs_table, read_log, split_name
    from reid_tune.tables import print_table

    sweep, run = split_name(name)
    if run:
        for text in read_log(sweep, run, storage, follow):
            typer.echo(text, nl=False)
    elif follow:
        raise InputError(f"--follow needs a run: write {name}/7 for trial 7.")
    else:
        print_table(logs_table(sweep, storage))


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


def _print_differences(metrics: dict[str, dict[str, Any]]) -> None:
    from rich.table import Column, Table

    from reid_tune.tables import print_table

    table = Table("", *(Column(name, justify="right") for name in ("in the sweep", "again", "")))
    for name, row in metrics.items():
        # All digits, where other tables have percent.
        table.add_row(name, str(row["sweep"]), str(row["again"]), "equal" if row["equal"] else "not equal")
    print_table(table)


def _print_sweep(state: Any, folder: Path) -> None:
    from reid_tune.events.log import read_events
    from reid_tune.sweep.budget import Ledger
    from reid_tune.sweep.journal import EVENTS
    from reid_tune.sweep.report.summary import confirm_table, finals_table, leaderboard
    from reid_tune.sweep.report.words import words
    from reid_tune.tables import print_table

    for table in (leaderboard(state), confirm_table(state), finals_table(state)):
        if table is not None:
            print_table(table)
    for line in words(state, folder, Ledger(read_events(folder / EVENTS)).spent()):
        typer.echo(line)
