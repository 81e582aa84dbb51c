"""Commands that run sweeps and control running ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reid_tune.cli.common import (
    AllowEnvOption,
    Format,
    StorageOption,
    SweepFileArgument,
    SweepOverridesArgument,
    app,
    print_result,
)
from reid_tune.errors import InputError, ReidTuneError, StoppedError
from reid_tune.imports import quick_imports
from reid_tune.journal.stages import ResumeMode, Stage

if TYPE_CHECKING:
    from reid_tune.search_space.load import SweepConfig

__all__: list[str] = []

ResumeOption = Annotated[ResumeMode, typer.Option(help="For a sweep that exists: never refuses it, auto continues it.")]
FromOption = Annotated[Stage | None, typer.Option("--from", help="Run this stage and all later ones again.")]
UntilOption = Annotated[Stage, typer.Option(help="Last stage to run.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and print the plan; run no trials, write nothing.")
]
PlanFormatOption = Annotated[Format, typer.Option("--format", help="Output format of the plan of --dry-run.")]
AcceptSpaceOption = Annotated[
    bool, typer.Option("--accept-space", help="Continue a sweep although ranges of its space differ or keys are new.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(help="Run on a Ray cluster: HOST:6379, or auto on one of its nodes.", metavar="ADDRESS"),
]
SubmitOption = Annotated[
    str | None,
    typer.Option(
        "--submit", help="Submit the sweep as a Ray job to the dashboard of a cluster.", metavar="http://HOST:8265"
    ),
]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="Run every stage on a few images as a test; nothing is kept.")
]


@app.command()
def sweep(
    file: SweepFileArgument,
    overrides: SweepOverridesArgument = None,
    resume: ResumeOption = "never",
    start: FromOption = None,
    until: UntilOption = "register",
    accept_space: AcceptSpaceOption = False,
    dry_run: DryRunOption = False,
    format: PlanFormatOption = Format.table,
    address: AddressOption = None,
    submit: SubmitOption = None,
    smoke: SmokeOption = False,
    allow_env: AllowEnvOption = None,
) -> None:
    """Search, confirm the best trials, refit, export, test once, register."""
    if smoke:
        if dry_run or start or address or submit or accept_space or resume != "never":
            raise InputError("--smoke runs a test sweep on this machine: give no other option than --until.")
        _run_smoke_test(file, overrides, until)
        return
    if submit and address:
        raise InputError("--submit and --address are mutually exclusive: give one of them.")
    from reid_tune.search_space.load import load_sweep

    loaded = load_sweep(file, overrides or [])
    for line in loaded.notes:
        typer.echo(line, err=True)
    if submit:
        _submit(loaded, submit, _job_options(resume, start, until, accept_space, dry_run))
    elif dry_run:
        _print_plan(loaded, until, address, format)
    else:
        _run(loaded, resume=resume, start=start, until=until, address=address, accept_space=accept_space)


def _run_smoke_test(file: Path, overrides: list[str] | None, until: Stage) -> None:
    from reid_tune.sweep.smoke import run_smoke_test

    typer.echo(run_smoke_test(file, overrides or [], until))


def _submit(sweep: "SweepConfig", dashboard: str, options: list[str]) -> None:
    from reid_tune.execution.cluster.submit import submit

    raise typer.Exit(submit(sweep, dashboard, options, lambda text: typer.echo(text, nl=False)))


def _job_options(resume: ResumeMode, start: Stage | None, until: Stage, accept_space: bool, dry_run: bool) -> list[str]:
    """Return the options of the `reid-tune sweep` that the job runs."""
    options = ["--resume", resume, "--until", until, *(["--from", start] if start else [])]
    flags = {"--accept-space": accept_space, "--dry-run": dry_run}
    return options + [flag for flag, is_given in flags.items() if is_given]


def _print_plan(sweep: "SweepConfig", until: Stage, address: str | None, format: Format) -> None:
    from reid_tune.report.plan_sentences import plan_sentences
    from reid_tune.report.tables import plan_table
    from reid_tune.sweep.run import plan_sweep
    from reid_tune.tables import print_table

    plan = plan_sweep(sweep, until, address)
    if format is not Format.table:
        print_result(plan, format, {})
        return
    print_table(plan_table(plan))
    for line in plan_sentences(plan, until):
        typer.echo(line)


def _run(sweep: "SweepConfig", **options: Any) -> None:
    with quick_imports():
        from reid_tune.cli.reports import print_sweep
        from reid_tune.journal.sweep_lookup import resume_command
        from reid_tune.report.html import PAGE
        from reid_tune.report.summary import SearchAnalysis
        from reid_tune.sweep.run import run_sweep

    try:
        state = run_sweep(sweep, **options)
    except KeyboardInterrupt:
        raise StoppedError(f"stopped; continue with: {resume_command()}") from None
    folder = sweep.folder if sweep.remote else Path(sweep.file.storage) / sweep.file.name
    print_sweep(SearchAnalysis(state), folder)
    if (page := folder / PAGE).is_file():
        typer.echo(f"page: {page}")


@app.command()
def stop(
    name: Annotated[str, typer.Argument(help="Sweep and trial, for example NAME/7.")],
    storage: StorageOption = "runs",
) -> None:
    """Stop a trial of a running search; the sweep continues without it."""
    from reid_tune.journal.sweep_lookup import split_run_reference
    from reid_tune.sweep.requests import ask_to_stop

    typer.echo(ask_to_stop(*split_run_reference(name), storage))


@app.command()
def enqueue(
    name: Annotated[str, typer.Argument(help="Name of a sweep in the storage.")],
    values: Annotated[list[str], typer.Argument(help="Values of keys of the search space.", metavar="KEY=VALUE...")],
    storage: StorageOption = "runs",
) -> None:
    """Queue a trial with the given parameters; omitted parameters use the spec's values."""
    from reid_tune.sweep.requests import ask_to_enqueue

    typer.echo(ask_to_enqueue(name, values, storage))


@app.command()
def sync(
    names: Annotated[
        list[str], typer.Argument(help="Sweeps, or results folders of `train --track`.", metavar="NAME...")
    ],
    storage: StorageOption = "runs",
    to: Annotated[str | None, typer.Option(help="MLflow store, instead of the recorded one.")] = None,
) -> None:
    """Send to MLflow what it is missing after its server was unreachable or a process was killed."""
    from reid_tune.sweep.mlflow_sync import sync as send

    status = 0
    for name in names:
        try:
            for sent in send(name, storage, to, lambda text: typer.echo(text, err=True)):
                typer.echo(sent)
                status = max(status, 1 if sent.sent.refusal else 0)
        except ReidTuneError as error:
            typer.echo(f"reid-tune: {error}", err=True)
            status = max(status, error.status)
    raise typer.Exit(status)
