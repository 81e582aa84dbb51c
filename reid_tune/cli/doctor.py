"""The command that checks an installation."""

import os
from pathlib import Path
from typing import Annotated

import typer

from reid_tune.cli.common import AllowEnvOption, Format, FormatOption, app, print_result

__all__: list[str] = []


@app.command()
def doctor(
    file: Annotated[Path | None, typer.Argument(help="Spec or search-space file whose needs are checked.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Check the Ray cluster at HOST:6379, or auto.", metavar="ADDRESS")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Write an archive for a bug report, without secrets and images.", metavar="FILE.zip"),
    ] = None,
    format: FormatOption = Format.table,
    allow_env: AllowEnvOption = None,
) -> None:
    """Check this installation, and what a file needs; findings say what to do."""
    from reid_tune.doctor.check import Check, report_checks
    from reid_tune.doctor.file_needs import check_cluster, check_file
    from reid_tune.doctor.installation import check_installation
    from reid_tune.files import check_output_file

    if bundle is not None:
        check_output_file("--bundle", bundle, (".zip",))
    checks = list[Check]()

    def add(check: Check) -> None:
        checks.append(check)
        if format is Format.table:
            typer.echo(check)

    for check in check_installation():
        add(check)
    if file is not None:
        for check in check_file(file):
            add(check)
    if address is not None:
        add(check_cluster(address))
    if format is not Format.table:
        print_result(report_checks(checks), format, {})
    if bundle is not None:
        from reid_tune.doctor.bundle import write_bundle

        names = write_bundle(bundle, checks, file, os.environ)
        typer.echo(f"{bundle}: {', '.join(names)}; read it before you send it", err=True)
    raise typer.Exit(0 if all(check.is_ok for check in checks) else 1)
