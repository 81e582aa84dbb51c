"""Commands about data: demo data, checks, splits, conversion, and the cache of decoded images."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reid_tune.cli.common import (
    AllowEnvOption,
    Format,
    FormatOption,
    OverridesArgument,
    SpecOption,
    app,
    load_spec,
    print_result,
)

__all__: list[str] = []


@app.command("demo-data")
def demo_data(
    directory: Annotated[Path, typer.Argument(help="A folder that is empty or does not exist.")],
    identities: Annotated[int, typer.Option(help="Number of training identities, and of test identities.")] = 120,
    images: Annotated[int, typer.Option(help="Images per training identity.")] = 8,
    seed: Annotated[int, typer.Option(help="Random seed; another one draws other people.")] = 0,
    difficulty: Annotated[float, typer.Option(help="Difficulty, 0 (easy) to 1 (hard).")] = 0.6,
) -> None:
    """Draw a data set of pedestrians in Market-1501 layout."""
    from reid_tune.demo import draw_demo_data

    drawn = draw_demo_data(directory, identities=identities, images=images, seed=seed, difficulty=difficulty)
    typer.echo(
        f"{drawn.directory}: {drawn.train} training images of {drawn.identities} identities; "
        f"{drawn.query} queries and {drawn.gallery} gallery images ({drawn.distractors} distractors, "
        f"{drawn.junk} junk) of as many other identities"
    )


@app.command("check-data")
def check_data(
    spec: SpecOption,
    overrides: OverridesArgument = None,
    sheet: Annotated[
        Path | None, typer.Option(help="File of a contact sheet of some identities, .png or .jpg.")
    ] = None,
    format: FormatOption = Format.table,
    allow_env: AllowEnvOption = None,
) -> None:
    """Check every image of a spec; the exit status is 1 if a finding would make results invalid."""
    experiment = load_spec(spec, overrides, "check-data").experiment
    from reid_tune.tasks.check_data import check_data as check

    report = check(experiment, sheet)
    print_result(report.as_dict(), format, report.rows())
    if format is Format.table:
        if sheet:
            typer.echo(f"contact sheet: {sheet}", err=True)
        for finding in report.findings:
            typer.echo(f"{finding.severity}: {finding.sentence}")
    raise typer.Exit(1 if report.has_errors else 0)


@app.command()
def split(
    spec: SpecOption,
    directory: Annotated[Path, typer.Argument(help="A folder that is empty or does not exist.")],
    overrides: OverridesArgument = None,
    format: FormatOption = Format.table,
    allow_env: AllowEnvOption = None,
) -> None:
    """Write the validation split of a spec as lists of image files, for other tools and for dataset.validation.

    dataset.validation is holdout here unless an override sets another value.
    """
    overrides = overrides or []
    if not any(pair.startswith("dataset.validation=") for pair in overrides):
        overrides = ["dataset.validation=holdout", *overrides]
    experiment = load_spec(spec, overrides, "split").experiment
    from reid_tune.tasks.split import run_split

    counts = run_split(experiment, directory)
    print_result(counts, format, counts)


class Layout(StrEnum):
    """Data sets with a different layout."""

    msmt17 = "msmt17"


@app.command()
def convert(
    layout: Annotated[Layout, typer.Argument(help="Layout of the source.")],
    source: Annotated[Path, typer.Argument(help="Folder of the published data set, with its list files.")],
    target: Annotated[Path, typer.Argument(help="A folder that is empty or does not exist.")],
) -> None:
    """Convert a data set to Market-1501 layout, by links where the disk allows them."""
    from reid_tune.tasks.convert import convert_msmt17

    converted = {Layout.msmt17: convert_msmt17}[layout](source, target)
    typer.echo(
        f"{converted.target}: {converted.train} training images of {converted.identities} identities; "
        f"{converted.query} queries and {converted.gallery} gallery images of "
        f"{converted.test_identities} other identities"
    )


@app.command()
def cache(
    name: Annotated[str | None, typer.Argument(help="One cache file (default: all).")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the files that no process has open.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read every pixel and compare checksums, as each use of a file does.")
    ] = False,
    format: FormatOption = Format.table,
) -> None:
    """List the decoded images that runs share; the exit status is 1 if a file is damaged, or in use and not removed."""
    from reid_tune.data.image_cache import admin
    from reid_tune.errors import InputError

    if clear and check:
        raise InputError("--clear and --check are mutually exclusive: give one of them.")
    if clear:
        cleared = admin.clear_entries(name)
        outcomes = dict.fromkeys(cleared.removed, "removed")
        outcomes |= dict.fromkeys(cleared.in_use, "in use by a process, not removed")
        print_result(asdict(cleared), format, {name: {"": outcome} for name, outcome in outcomes.items()})
        raise typer.Exit(1 if cleared.in_use else 0)
    if check:
        checked = admin.check_entries(name)
        rows = {name: {"": "intact" if is_intact else "damaged"} for name, is_intact in checked.items()}
        print_result(checked, format, rows)
        raise typer.Exit(0 if all(checked.values()) else 1)
    entries = admin.list_entries(name)
    print_result([entry.as_dict() for entry in entries], format, {entry.name: entry.row() for entry in entries})
    raise typer.Exit(1 if any(entry.header is None for entry in entries) else 0)
