"""Application, arguments, options and output formats of the commands."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reid_tune.config.load import LoadedSpec

__all__ = [
    "AllowEnvOption",
    "DeviceOption",
    "Format",
    "FormatOption",
    "OverridesArgument",
    "SpecOption",
    "StorageOption",
    "SweepFileArgument",
    "SweepOverridesArgument",
    "app",
    "load_spec",
    "print_result",
]

app = typer.Typer(
    name="reid-tune",
    help="Find, prove and ship the best person re-identification model for your data and hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """Output formats; tables show percent, the others fractions."""

    table = "table"
    json = "json"
    yaml = "yaml"


SpecOption = Annotated[Path, typer.Option("-e", "--experiment_spec_file", help="Experiment spec, a YAML file.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="key=value pairs that override the spec.", metavar="[KEY=VALUE]...")
]
SweepFileArgument = Annotated[Path, typer.Argument(help="Search-space file.")]
SweepOverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="key=value pairs that override the spec, sweep.KEY=value pairs that override the search-space file.",
        metavar="[KEY=VALUE]...",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Device: auto (GPU 0 if there is one, else the CPU), cpu, cuda or cuda:N.")
]
StorageOption = Annotated[str, typer.Option(help="Folder of the sweeps, or s3://BUCKET/PREFIX.")]
FormatOption = Annotated[Format, typer.Option("--format", help="Output format.")]


def _allow_variables(context: typer.Context, names: list[str] | None) -> list[str] | None:
    if names:
        from reid_tune.config.interpolation import allow_variables

        context.with_resource(allow_variables(names))
    return names


AllowEnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-env",
        metavar="NAME",
        callback=_allow_variables,
        help="Environment variable that ${oc.env:NAME} in the spec may read although its name looks like a secret; "
        "may be repeated.",
    ),
]


def load_spec(
    spec: Path, overrides: list[str] | None, task: str | None, arguments: dict[str, Any] | None = None
) -> "LoadedSpec":
    """Return the spec of a command, which checks only what its task reads; print what has no effect or is left out."""
    from reid_tune.config.load import load_spec as load

    loaded = load(spec, overrides or (), task, arguments)
    for line in loaded.notes:
        typer.echo(line, err=True)
    return loaded


def print_result(content: Any, format: Format, rows: dict[str, dict[str, Any]]) -> None:
    """Print a result.

    Args:
        content: Printed as JSON or YAML.
        rows: Metrics by label, printed as a table.
    """
    if format is Format.json:
        typer.echo(json.dumps(content, indent=2))
    elif format is Format.yaml:
        import yaml

        typer.echo(yaml.safe_dump(content, sort_keys=False), nl=False)
    else:
        from reid_tune.tables import print_metrics

        print_metrics(rows)
