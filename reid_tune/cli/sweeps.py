"""Commands that run sweeps."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from reid_tune.cli.common import Format, FormatOption, StorageOption, app, print_result
from reid_tune.errors import InputError, ReidTuneError

__all__: list[str] = []


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
    format: Annotated[Format, typer.Option("--format", help="How to print the plan of --dry-run.")] = Format.table,
    address: Annotated[
        str | None,
        typer.Option(help="Run on a Ray cluster: HOST:6379, or auto where this machine is a node.", metavar="ADDRESS"),
    ] = None,
    hand_in: Annotated[
        str | None,
        typer.Option(
            "--submit", help="Run it as a job of the cluster with this dashboard.", metavar="http://HOST:8265"
        ),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Run every stage on a handful of the images, and leave nothing behind.")
    ] = False,
) -> None:
    """Search, confirm the best, refit, export, test once, register."""
    if smoke:
        if dry_run or start or address or hand_in or resume is not Resume.never:
            raise InputError("--smoke is a sweep of its own, on this machine: give no other option than --until.")
        from reid_tune.sweep.smoke import run_smoke_test as run_smoke

        typer.echo(run_smoke(file, overrides or [], until.value))
        return
    from reid_tune.cli.inspect import print_sweep
    from reid_tune.search_space.load import load_sweep

    loaded = load_sweep(file, overrides or [])
    if hand_in:
        raise typer.Exit(_submit(loaded, hand_in, resume, start, until, dry_run, address))
    from reid_tune.journal.store import resume_command
    from reid_tune.report.html import PAGE
    from reid_tune.report.sentences import plan_sentences
    from reid_tune.report.tables import plan_table
    from reid_tune.sweep.driver import plan_sweep, run_sweep
    from reid_tune.tables import print_table

    if dry_run:
        plan = plan_sweep(loaded, until.value, address)
        if format is not Format.table:
            print_result(plan, format, {})
            return
        print_table(plan_table(plan))
        for line in plan_sentences(plan):
            typer.echo(line)
        return
    try:
        first = start.value if start else None
        state = run_sweep(loaded, resume=resume.value, until=until.value, start=first, address=address)
    except KeyboardInterrupt:
        typer.echo(f"stopped; continue with: {resume_command()}", err=True)
        raise
    folder = loaded.folder if loaded.remote else Path(loaded.file.storage) / loaded.file.name
    print_sweep(state, folder)
    if (page := folder / PAGE).is_file():
        typer.echo(f"page: {page}")


def _submit(
    sweep: Any, where: str, resume: Resume, start: Stage | None, until: Stage, dry_run: bool, address: str | None
) -> int:
    """The exit status of a sweep that a cluster runs as a job."""
    from reid_tune.execution.cluster.submit import submit

    if address:
        raise InputError("--submit and --address are two ways to a cluster: give one of them.")
    options = ["--resume", resume.value, "--until", until.value, *(["--from", start.value] if start else [])]
    options += ["--dry-run"] if dry_run else []
    return submit(sweep, where, options, lambda text: typer.echo(text, nl=False))


@_runs.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="NAME/7 for a trial, NAME/confirm/0007-2, NAME/refit/winner.")],
    run: Annotated[bool, typer.Option("--run", help="Train it, and compare the metrics of its last epoch.")] = False,
    storage: StorageOption = "runs",
    format: FormatOption = Format.table,
) -> None:
    """Print the command that trains a run of a sweep again.

    With train.deterministic and one worker the same machine gives the same digits; where --run finds others, the exit
    status is 1.
    """
    from reid_tune.journal.s3_reader import snapshot_for_reading
    from reid_tune.report.reproduce import find_run, reproduce_command, write_spec
    from reid_tune.sweep.reproduce import compare_metrics, retrain

    state, found, folder = find_run(name, snapshot_for_reading(storage, name.partition("/")[0]))
    again = reproduce_command(state, found, write_spec(folder, state))
    if not run:
        typer.echo(again)
        return
    if not found.epochs:
        raise InputError(f"{name} has reported no epoch: there is nothing to compare with.")
    typer.echo(again, err=True)
    metrics = compare_metrics(found, retrain(again))
    equal = all(row["equal"] for row in metrics.values())
    if format is Format.table:
        _print_differences(metrics)
        typer.echo(f"epoch {found.epoch}: {'equal' if equal else 'not equal'}")
    else:
        print_result({"epoch": found.epoch, "equal": equal, "metrics": metrics}, format, {})
    if not again.is_exact and not equal:
        typer.echo("equal digits can be expected of one worker with train.deterministic alone.", err=True)
    raise typer.Exit(1 if again.is_exact and not equal else 0)


@app.command()
def stop(
    name: Annotated[str, typer.Argument(help="NAME/7 for trial 7 of the sweep NAME.")],
    storage: StorageOption = "runs",
) -> None:
    """End a trial of a search; the sweep goes on without it."""
    from reid_tune.journal.store import split_run_reference
    from reid_tune.sweep.requests import ask_to_stop

    typer.echo(ask_to_stop(*split_run_reference(name), storage))


@app.command()
def enqueue(
    name: Annotated[str, typer.Argument(help="Name of a sweep below the storage.")],
    values: Annotated[list[str], typer.Argument(help="Keys of its space.", metavar="KEY=VALUE...")],
    storage: StorageOption = "runs",
) -> None:
    """Give the next trial of a search these values; keys of the space that are left out have the spec's."""
    from reid_tune.sweep.requests import ask_to_enqueue

    typer.echo(ask_to_enqueue(name, values, storage))


def _print_differences(metrics: dict[str, dict[str, Any]]) -> None:
    from rich.table import Column, Table

    from reid_tune.tables import print_table

    table = Table("", *(Column(name, justify="right") for name in ("in the sweep", "again", "")))
    for name, row in metrics.items():
        # All digits, where other tables have percent.
        table.add_row(name, str(row["sweep"]), str(row["again"]), "equal" if row["equal"] else "not equal")
    print_table(table)


@app.command()
def sync(
    names: Annotated[
        list[str], typer.Argument(help="Sweeps, or folders of trainings with --track.", metavar="NAME...")
    ],
    storage: StorageOption = "runs",
    to: Annotated[str | None, typer.Option(help="Another MLflow store than the one that was recorded.")] = None,
) -> None:
    """Send to MLflow what it has missed: its server was away, or the process was killed."""
    from reid_tune.sweep.sync import sync as send

    status = 0
    for name in names:
        try:
            for sent in send(name, storage, to, lambda text: typer.echo(text, err=True)):
                typer.echo(sent)
        except ReidTuneError as error:
            typer.echo(f"reid-tune: {error}", err=True)
            status = max(status, error.status)
    raise typer.Exit(status)
