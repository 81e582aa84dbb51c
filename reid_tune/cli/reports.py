"""Commands that show sweeps and runs, the MLflow pages and the version."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reid_tune import __version__
from reid_tune.cli.common import Format, FormatOption, StorageOption, app, print_result
from reid_tune.errors import InputError

if TYPE_CHECKING:
    from reid_tune.report.summary import SearchAnalysis

__all__ = ["print_sweep"]


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Name of a sweep in the storage.")],
    format: FormatOption = Format.table,
    html: Annotated[
        Path | None,
        typer.Option(help="File of the HTML page (default with tables: NAME/report.html)."),
    ] = None,
    storage: StorageOption = "runs",
) -> None:
    """Show the results of a sweep, running or not, and write them as an HTML page."""
    from reid_tune.journal.costs import CostLedger
    from reid_tune.journal.event_log import EVENTS, read_events
    from reid_tune.journal.s3_reader import snapshot_for_reading
    from reid_tune.journal.sweep_lookup import load_state, sweep_folder
    from reid_tune.report.html import write_page
    from reid_tune.report.summary import SearchAnalysis, build_report

    storage = snapshot_for_reading(storage, name)
    analysis = SearchAnalysis(load_state(name, storage))
    folder = sweep_folder(name, storage)
    if html is not None:
        typer.echo(f"page: {write_page(folder, html, analysis)}", err=True)
    if format is not Format.table:
        print_result(build_report(analysis, CostLedger(read_events(folder / EVENTS)).by_stage()), format, {})
        return
    print_sweep(analysis, folder)
    if html is None:
        try:
            typer.echo(f"page: {write_page(folder, None, analysis)}")
        except InputError as error:
            typer.echo(f"no page: {error}", err=True)


@app.command("export-study")
def export_study(
    name: Annotated[str, typer.Argument(help="Name of a sweep in the storage.")],
    file: Annotated[Path, typer.Argument(help="New file: SQLite if it ends in .db or .sqlite, else Optuna's journal.")],
    storage: StorageOption = "runs",
) -> None:
    """Write the trials of a sweep, running or not, as an Optuna study for optuna-dashboard and other tools."""
    from reid_tune.journal.s3_reader import snapshot_for_reading
    from reid_tune.journal.sweep_lookup import sweep_folder
    from reid_tune.search.optuna_export import export_study as export
    from reid_tune.search.optuna_export import study_address
    from reid_tune.tables import format_count

    count = export(sweep_folder(name, snapshot_for_reading(storage, name)), file)
    typer.echo(
        f"study {name} with {format_count(count, 'trial')}; show it with: optuna-dashboard {study_address(file)}",
        err=True,
    )
    typer.echo(file)


@app.command()
def sweeps(storage: StorageOption = "runs", format: FormatOption = Format.table) -> None:
    """List all sweeps: state, trials, best score, age."""
    from reid_tune.journal.s3_reader import snapshot_for_reading
    from reid_tune.report.overview import list_sweeps, sweeps_table
    from reid_tune.tables import print_table

    entries = list_sweeps(Path(snapshot_for_reading(storage)))
    if format is Format.table:
        print_table(sweeps_table(entries))
    else:
        print_result(entries, format, {})


@app.command()
def logs(
    name: Annotated[
        str,
        typer.Argument(help="NAME/7 for trial 7, NAME/refit/winner, or NAME for all last lines."),
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the run ends.")] = False,
    storage: StorageOption = "runs",
) -> None:
    """Show the log of a run."""
    from reid_tune.journal.s3_reader import snapshot_for_reading
    from reid_tune.journal.sweep_lookup import split_run_reference
    from reid_tune.report.run_logs import logs_table, read_log
    from reid_tune.tables import print_table

    sweep, run = split_run_reference(name)
    snapshot = snapshot_for_reading(storage, sweep)
    if run:
        for text in read_log(sweep, run, snapshot, follow, refresh=lambda: snapshot_for_reading(storage, sweep)):
            typer.echo(text, nl=False)
    elif follow:
        raise InputError(f"--follow needs a run: write {name}/7 for trial 7.")
    else:
        print_table(logs_table(sweep, snapshot))


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Open the MLflow UI on this folder's store (or MLFLOW_TRACKING_URI)."""
    from reid_tune.tracking.store import tracking_uri
    from reid_tune.tracking.ui import run_ui

    raise typer.Exit(run_ui(tracking_uri(), port))


@app.command("version")
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def print_sweep(analysis: "SearchAnalysis", folder: Path) -> None:
    """Print the answers, tables and sentences of a sweep's report."""
    from reid_tune.journal.costs import CostLedger
    from reid_tune.journal.event_log import EVENTS, read_events
    from reid_tune.report.answers import answer_questions
    from reid_tune.report.sentences import report_sentences
    from reid_tune.report.tables import confirm_table, finalist_table, leaderboard
    from reid_tune.tables import print_table

    state = analysis.state
    for answer in answer_questions(state, CostLedger(read_events(folder / EVENTS)).total()):
        typer.echo(answer)
    for table in (leaderboard(state), confirm_table(state), finalist_table(state)):
        if table is not None:
            print_table(table)
    for line in report_sentences(analysis, folder):
        typer.echo(line)
