"""Commands about data: drawing, checking, converting, and the cache of decoded images."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reid_tune.cli.common import Format, FormatOption, OverridesArgument, SpecOption, app, load_spec, print_result

__all__: list[str] = []


@app.command("demo-data")
def demo_data(
    directory: Annotated[Path, typer.Argument(help="A folder that is empty or does not exist.")],
    identities: Annotated[int, typer.Option(help="Training identities; there are as many for the test.")] = 120,
    images: Annotated[int, typer.Option(help="Images of a training identity.")] = 8,
    seed: Annotated[int, typer.Option(help="Another seed draws other people.")] = 0,
    difficulty: Annotated[float, typer.Option(help="0 is easy, 1 is hard.")] = 0.6,
) -> None:
    """Draw a data set of pedestrians in Market-1501 layout."""
    from reid_tune.demo import draw_demo_data

    drawn = draw_demo_data(directory, identities=identities, images=images, seed=seed, difficulty=difficulty)
    typer.echo(
        f"{drawn.directory}: {drawn.train} training images of {drawn.identities} identities; of as many others "
        f"{drawn.query} queries and {drawn.gallery} gallery images ({drawn.distractors} distractors, {drawn.junk} junk)"
    )


@app.command("check-data")
def check_data(
    spec: SpecOption,
    overrides: OverridesArgument = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw a contact sheet of some identities, a .png or .jpg file.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Look at every image of a spec and name what is wrong; exit status 1 where it would spoil a result."""
    experiment = load_spec(spec, overrides)
    from reid_tune.tasks.check_data import check_data as check

    report = check(experiment, sheet)
    print_result(report.as_dict(), format, report.rows())
    if format is Format.table:
        if sheet:
            typer.echo(f"contact sheet: {sheet}", err=True)
        for finding in report.findings:
            typer.echo(f"{finding.severity}: {finding.sentence}")
    raise typer.Exit(1 if report.spoiled else 0)


@app.command()
def split(
    spec: SpecOption,
    directory: Annotated[Path, typer.Argument(help="A folder that is empty or does not exist.")],
    overrides: OverridesArgument = None,
    format: FormatOption = Format.table,
) -> None:
    """Write the hold-out of a spec as lists of image files, which other tools and dataset.validation read.

    Whatever dataset.validation the spec has, holdout is meant, unless another is given here.
    """
    overrides = overrides or []
    if not any(pair.startswith("dataset.validation=") for pair in overrides):
        overrides = ["dataset.validation=holdout", *overrides]
    experiment = load_spec(spec, overrides)
    from reid_tune.tasks.split import run_split

    counts = run_split(experiment, directory)
    print_result(counts, format, counts)


class Layout(StrEnum):
    """Data sets that come in a form of their own."""

    msmt17 = "msmt17"


@app.command()
def convert(
    layout: Annotated[Layout, typer.Argument(help="Form of the source.")],
    source: Annotated[Path, typer.Argument(help="Folder as published, with its list files.")],
    target: Annotated[Path, typer.Argument(help="A folder that is empty or does not exist.")],
) -> None:
    """Lay a data set out in Market-1501's form, by links where the disk allows."""
    from reid_tune.tasks.convert import convert_msmt17

    made = {Layout.msmt17: convert_msmt17}[layout](source, target)
    typer.echo(
        f"{made.target}: {made.train} training images of {made.identities} identities; of {made.test_identities} "
        f"others {made.query} queries and {made.gallery} gallery images"
    )


@app.command()
def cache(
    name: Annotated[str | None, typer.Argument(help="One file of the list instead of all.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove what no process has open.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read every pixel and compare checksums, as each use of a file does.")
    ] = False,
    format: FormatOption = Format.table,
) -> None:
    """List the decoded images that runs share; exit status 1 where a file is damaged, or in use and not removed."""
    from reid_tune.data.image_cache import admin as contents
    from reid_tune.errors import InputError

    if clear and check:
        raise InputError("--clear and --check cannot be given together: choose one.")
    if clear:
        cleared = contents.clear_entries(name)
        kept = dict.fromkeys(cleared.in_use, "in use by a process, not removed")
        told = dict.fromkeys(cleared.removed, "removed") | kept
        print_result(asdict(cleared), format, {name: {"": word} for name, word in told.items()})
        raise typer.Exit(1 if kept else 0)
    if check:
        intact = contents.check_entries(name)
        print_result(intact, format, {name: {"": "intact" if whole else "damaged"} for name, whole in intact.items()})
        raise typer.Exit(0 if all(intact.values()) else 1)
    entries = contents.list_entries(name)
    print_result([entry.as_dict() for entry in entries], format, {entry.name: entry.row() for entry in entries})
    raise typer.Exit(1 if any(entry.header is None for entry in entries) else 0)
