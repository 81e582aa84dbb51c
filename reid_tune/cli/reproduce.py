"""The command that reproduces a run of a sweep."""

from typing import Annotated, Any

import typer

from reid_tune.cli.common import Format, FormatOption, StorageOption, app, print_result
from reid_tune.errors import InputError

__all__: list[str] = []


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="Sweep and run: NAME/7, NAME/confirm/0007-2 or NAME/refit/winner.")],
    run: Annotated[bool, typer.Option("--run", help="Train it, and compare the metrics of its last epoch.")] = False,
    storage: StorageOption = "runs",
    format: FormatOption = Format.table,
) -> None:
    """Print the command that trains a run of a sweep again.

    With train.deterministic and one worker the same machine gives the same digits; if --run finds different ones, the
    exit status is 1.
    """
    from reid_tune.journal.s3_reader import snapshot_for_reading
    from reid_tune.report.reproduce import find_run, reproduce_command, write_spec
    from reid_tune.sweep.reproduce import compare_metrics, retrain

    state, original, folder = find_run(name, snapshot_for_reading(storage, name.partition("/")[0]))
    command = reproduce_command(state, original, write_spec(folder, state))
    if not run:
        typer.echo(command)
        return
    if not original.epochs:
        raise InputError(f"{name} has reported no epoch: there is nothing to compare with.")
    typer.echo(command, err=True)
    metrics = compare_metrics(original, retrain(command))
    equal = all(row["equal"] for row in metrics.values())
    if format is Format.table:
        _print_comparison(metrics)
        typer.echo(f"epoch {original.epoch}: {'equal' if equal else 'not equal'}")
    else:
        print_result({"epoch": original.epoch, "equal": equal, "metrics": metrics}, format, {})
    if not command.is_exact and not equal:
        typer.echo("Equal digits can be expected only with train.deterministic and one worker.", err=True)
    raise typer.Exit(1 if command.is_exact and not equal else 0)


def _print_comparison(metrics: dict[str, dict[str, Any]]) -> None:
    from rich.table import Column, Table

    from reid_tune.tables import print_table

    table = Table("", *(Column(name, justify="right") for name in ("in the sweep", "again", "")))
    for name, row in metrics.items():
        # All digits, unlike other tables, which show percent.
        table.add_row(name, str(row["sweep"]), str(row["again"]), "equal" if row["equal"] else "not equal")
    print_table(table)
