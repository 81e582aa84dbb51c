"""Commands about registered models and their aliases."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reid_tune.cli.common import Format, FormatOption, app, print_result

if TYPE_CHECKING:
    from rich.table import Table

__all__: list[str] = []

registry_app = typer.Typer(help="List and show registered models; move their aliases.", no_args_is_help=True)
app.add_typer(registry_app, name="registry")

Model = Annotated[str, typer.Argument(metavar="NAME", help="Name of a registered model.")]
Alias = Annotated[str, typer.Option(help="Alias to move.")]


@registry_app.command("list")
def registry_list(format: FormatOption = Format.table) -> None:
    """List all versions of all models, the newest first: aliases, test scores, sweep, age."""
    from reid_tune.tables import print_table
    from reid_tune.tracking.registry.overview import list_versions
    from reid_tune.tracking.store import redact, tracking_uri

    versions = list_versions(tracking_uri())
    if not versions:
        typer.echo(
            f"no model is registered in {redact(tracking_uri())}: the stage register of a sweep registers its winner.",
            err=True,
        )
    if format is not Format.table:
        print_result(versions, format, {})
    elif versions:
        heads = ("model", "version", "aliases", "mAP %", "Rank-1 %", "sweep", "age")
        print_table(_table(heads, [_row(version) for version in versions]))


@registry_app.command("show")
def registry_show(
    reference: Annotated[
        str,
        typer.Argument(metavar="NAME[@ALIAS|/VERSION]", help="Model, with an alias or a version (default: champion)."),
    ],
    format: FormatOption = Format.table,
) -> None:
    """Show a version, the history of its model's aliases, and how to use it."""
    from reid_tune.tables import print_table
    from reid_tune.tracking.champion_comparison import explain_comparisons
    from reid_tune.tracking.registry.overview import show_version
    from reid_tune.tracking.store import tracking_uri

    version = show_version(tracking_uri(), reference)
    if format is not Format.table:
        print_result(version, format, {})
        return
    typer.echo(f"{version['model']}, version {version['version']}")
    typer.echo(f"aliases: {', '.join(version['aliases']) or 'none'}")
    typer.echo(f"registered: {_time(version['created'])}")
    typer.echo(f"files: {version['source']}")
    typer.echo(f"\n{version['description']}\n")
    if sentence := explain_comparisons(version["version"], version["comparisons"]):
        typer.echo(f"{sentence}\n")
    for alias, changes in version["history"].items():
        rows = [[_time(change["time"]), str(change["version"]), change["reason"]] for change in changes]
        print_table(_table(("since", alias, "why"), rows))
    address = f"models:/{version['model']}" + (
        f"@{version['aliases'][0]}" if version["aliases"] else f"/{version['version']}"
    )
    typer.echo(f'\nmlflow.pyfunc.load_model("{address}").predict(images)')
    typer.echo(f"reid-tune evaluate -e SPEC evaluate.checkpoint='{address}'")


@registry_app.command("promote")
def registry_promote(
    model: Model,
    version: Annotated[int, typer.Argument(min=1, help="Version that receives the alias.")],
    alias: Alias = "champion",
    force: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Move the alias in any case; your user name and the reason are recorded."),
    ] = None,
) -> None:
    """Move an alias to a version that its sweep has compared with the present one, and accepted."""
    from reid_tune.tracking.registry.aliases import promote
    from reid_tune.tracking.store import tracking_uri

    typer.echo(promote(tracking_uri(), model, version, alias, forced=force))


@registry_app.command("rollback")
def registry_rollback(model: Model, alias: Alias = "champion") -> None:
    """Move an alias back to the version that had it before; each call goes one step back."""
    from reid_tune.tracking.registry.aliases import rollback
    from reid_tune.tracking.store import tracking_uri

    typer.echo(rollback(tracking_uri(), model, alias))


def _row(version: dict[str, Any]) -> list[str]:
    import time

    from reid_tune.tables import format_duration, format_percent

    scores = ["" if version[name] is None else format_percent(version[name]) for name in ("mAP", "Rank-1")]
    names = [version["model"], str(version["version"]), ", ".join(version["aliases"])]
    return [*names, *scores, version["sweep"] or "", format_duration(time.time() - version["created"])]


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _time(seconds: float) -> str:
    from reid_tune.tables import format_time

    return format_time(seconds)
