"""Commands about experiment specs."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reid_tune.cli.common import AllowEnvOption, app, load_spec

__all__: list[str] = []

spec_app = typer.Typer(help="Check and show experiment specs.", no_args_is_help=True)
app.add_typer(spec_app, name="spec")


@spec_app.command("validate")
def spec_validate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="Spec, then key=value pairs that override it.", metavar="SPEC [KEY=VALUE]..."),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option("-e", "--experiment_spec_file", help="Spec, as an option like in the other commands.")
    ] = None,
    allow_env: AllowEnvOption = None,
) -> None:
    """Check all fields of a spec; no other file is read."""
    overrides = list(arguments or ())
    if spec is None:
        if not overrides:
            raise typer.BadParameter("no spec is given: name a spec file.")
        spec = Path(overrides.pop(0))
    load_spec(spec, overrides, None)
    typer.echo(f"{spec}: valid")


class Family(StrEnum):
    """Backbones with documented defaults."""

    resnet50 = "resnet50"
    swin = "swin"


@spec_app.command("show")
def spec_show(
    defaults: Annotated[Family, typer.Option("--defaults", help="Backbone family.")] = Family.resnet50,
) -> None:
    """Print all fields with their defaults."""
    from reid_tune.config.load import build_experiment

    backbone = {"resnet50": "resnet_50", "swin": "swin_tiny_patch4_window7_224"}[defaults.value]
    typer.echo(build_experiment({}, {"model.backbone": backbone}, "defaults").to_yaml(), nl=False)


@spec_app.command("schema")
def spec_schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    from reid_tune.config.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@spec_app.command("page")
def spec_page() -> None:
    """Print all fields with defaults, allowed values and descriptions, as Markdown."""
    from reid_tune.config.json_schema import markdown_page

    typer.echo(markdown_page(), nl=False)
