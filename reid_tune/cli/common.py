"""What the commands share: the application, arguments, output formats."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reid_tune.config.experiment import Experiment

__all__ = ["DeviceOption", "Format", "FormatOption", "Overrides", "Spec", "Storage", "app", "load", "show"]

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


Spec = Annotated[Path, typer.Option("-e", "--experiment_spec_file", help="Experiment spec, a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value pairs that override the spec.", metavar="[KEY=VALUE]...")
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="Where to compute: auto (GPU 0 if there is one, else the CPU), cpu, cuda or cuda:N."),
]
Storage = Annotated[str, typer.Option(help="Folder of the sweeps, or s3://BUCKET/PREFIX.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]


def load(spec: Path, overrides: list[str] | None) -> "Experiment":
    """The experiment that a command works on; says what is left out of its spec."""
    from reid_tune.config.checks import left_out
    from reid_tune.config.load import given_keys, load_experiment

    experiment = load_experiment(spec, overrides or ())
    for line in left_out(given_keys(spec, overrides or ())):
        typer.echo(line, err=True)
    return experiment


def show(content: Any, format: Format, rows: dict[str, dict[str, Any]]) -> None:
    """Print a result: `rows` as a table, `content` as JSON or YAML."""
    if format is Format.json:
        typer.echo(json.dumps(content, indent=2))
    elif format is Format.yaml:
        import yaml

        typer.echo(yaml.safe_dump(content, sort_keys=False), nl=False)
    else:
        from reid_tune.tables import print_metrics

        print_metrics(rows)
