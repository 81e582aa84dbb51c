"""The command line: one short function for each command; parse, call, print.

Everything heavy is imported inside the command that needs it, so that help is instant.
"""

import json
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reid_tune import __version__
from reid_tune.errors import ReidTuneError

if TYPE_CHECKING:
    from reid_tune.spec.experiment import Experiment

__all__ = ["app", "main"]

app = typer.Typer(
    name="reid-tune",
    help="Find, prove and ship the best person re-identification model for your data and hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
spec_app = typer.Typer(help="Check and show experiment specs.", no_args_is_help=True)
app.add_typer(spec_app, name="spec")


class Format(StrEnum):
    """Output formats; tables show percent, the others fractions."""

    table = "table"
    json = "json"
    yaml = "yaml"


Spec = Annotated[Path, typer.Option("-e", "--experiment_spec_file", help="Experiment spec, a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value pairs that override the spec.", metavar="[KEY=VALUE]...")
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]


@app.command()
def train(spec: Spec, overrides: Overrides = None) -> None:
    """Train one model as a spec says; continues what is in the results folder."""
    from reid_tune.spec.checks import notes
    from reid_tune.spec.load import given_keys

    experiment = _load(spec, overrides)
    for line in notes(experiment, given_keys(spec, overrides or ())):
        typer.echo(line, err=True)
    from reid_tune.tasks.train import run_train

    try:
        typer.echo(run_train(experiment).checkpoint)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues from the last finished epoch.", err=True)
        raise


@app.command()
def evaluate(spec: Spec, overrides: Overrides = None, format: FormatOption = Format.table) -> None:
    """Score evaluate.checkpoint (a checkpoint, .onnx file, models:/NAME@ALIAS or sweep:NAME) on the test folders."""
    experiment = _load(spec, overrides)
    from reid_tune.tasks.evaluate import run_evaluate

    evaluated = run_evaluate(experiment).as_dict()
    rows = {name.replace("_", "-"): metrics for name, metrics in evaluated.items() if metrics}
    _print(evaluated, format, rows)


@app.command()
def score(
    features: Annotated[Path, typer.Argument(help=".npz with query_ and gallery_ features, ids and cameras.")],
    re_ranking: Annotated[
        str | None, typer.Option("--re-ranking", metavar="K1,K2,LAMBDA", help="Re-rank, e.g. 20,6,0.3.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Score the features of any model: mAP, mINP and Rank-k."""
    from reid_tune.tasks.score import run_score

    metrics = run_score(features, re_ranking)
    _print(metrics, format, {"re-ranked" if re_ranking else "plain": metrics})


@app.command()
def export(
    reference: Annotated[
        str | None, typer.Argument(help="sweep:NAME, models:/NAME@ALIAS or a checkpoint; needs no spec.")
    ] = None,
    overrides: Overrides = None,
    spec: Annotated[
        Path | None, typer.Option("-e", "--experiment_spec_file", help="Experiment spec, a YAML file.")
    ] = None,
) -> None:
    """Write export.checkpoint as one ONNX file, compared with PyTorch before it appears."""
    from reid_tune.spec.load import parse_overrides
    from reid_tune.tasks.export import run_export

    pairs = [text for text in [reference, *(overrides or [])] if text is not None]
    named = pairs.pop(0) if pairs and "=" not in pairs[0] else None
    experiment = _load(spec, pairs) if spec else None
    file, parity = run_export(experiment, named, parse_overrides(pairs))
    typer.echo(parity, err=True)
    typer.echo(file)


@app.command("demo-data")
def demo_data(
    directory: Annotated[Path, typer.Argument(help="A folder that is empty or does not exist.")],
    identities: Annotated[int, typer.Option(help="Training identities; there are as many for the test.")] = 120,
    images: Annotated[int, typer.Option(help="Images of a training identity.")] = 8,
    seed: Annotated[int, typer.Option(help="Another seed draws other people.")] = 0,
    difficulty: Annotated[float, typer.Option(help="0 is easy, 1 is hard.")] = 0.6,
) -> None:
    """Draw a data set of pedestrians in Market-1501 layout."""
    from reid_tune.data.demo import draw_demo_data

    drawn = draw_demo_data(directory, identities=identities, images=images, seed=seed, difficulty=difficulty)
    typer.echo(
        f"{drawn.directory}: {drawn.train} training images of {drawn.identities} identities; of as many others "
        f"{drawn.query} queries and {drawn.gallery} gallery images ({drawn.distractors} distractors, {drawn.junk} junk)"
    )


@spec_app.command("validate")
def spec_validate(file: Annotated[Path, typer.Argument(help="Experiment spec.")], overrides: Overrides = None) -> None:
    """Check a spec; looks at no other file."""
    from reid_tune.spec.checks import notes

    for line in notes(_load(file, overrides)):
        typer.echo(line, err=True)
    typer.echo(f"{file}: valid")


class Family(StrEnum):
    """Backbones with documented defaults."""

    resnet50 = "resnet50"
    swin = "swin"


@spec_app.command("show")
def spec_show(
    defaults: Annotated[Family, typer.Option("--defaults", help="Which table of defaults.")] = Family.resnet50,
) -> None:
    """Print all fields with their defaults."""
    from reid_tune.spec.load import build_experiment

    backbone = {"resnet50": "resnet_50", "swin": "swin_tiny_patch4_window7_224"}[defaults.value]
    typer.echo(build_experiment({}, {"model.backbone": backbone}, "defaults").to_yaml(), nl=False)


class Stage(StrEnum):
    """Stages of a sweep, in order."""

    preflight = "preflight"
    search = "search"
    refit = "refit"
    export = "export"
    test = "test"
    register = "register"


class Resume(StrEnum):
    """What to do with a sweep that exists."""

    never = "never"
    auto = "auto"


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="Search-space file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value overrides the spec, sweep.KEY=value the file.", metavar="[KEY=VALUE]..."),
    ] = None,
    resume: Annotated[
        Resume, typer.Option(help="never refuses a name that exists; auto begins or continues.")
    ] = Resume.never,
    until: Annotated[Stage, typer.Option(help="The last stage to run.")] = Stage.register,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
) -> None:
    """Search, refit the best, export, test once, register."""
    from reid_tune.sweep.file import load_sweep

    loaded = load_sweep(file, overrides or [])
    from reid_tune.sweep.drive import plan_sweep, resume_command, run_sweep

    if dry_run:
        _print(plan_sweep(loaded, until.value), Format.yaml, {})
        return
    try:
        state = run_sweep(loaded, resume=resume.value, until=until.value)
    except KeyboardInterrupt:
        typer.echo(f"stopped; continue with: {resume_command()}", err=True)
        raise
    _print_sweep(state, loaded.file.storage)


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Name of a sweep below ./runs.")],
    format: FormatOption = Format.table,
    storage: Annotated[str, typer.Option(help="Folder of the sweeps.")] = "runs",
) -> None:
    """Show what a sweep has found, running or not."""
    from reid_tune.sweep.report import load_state
    from reid_tune.sweep.report import report as make_report

    state = load_state(name, storage)
    if format is Format.table:
        _print_sweep(state, storage)
    else:
        _print(make_report(state), format, {})


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Open MLflow's pages on this folder's store (or MLFLOW_TRACKING_URI)."""
    from reid_tune.tracking.store import tracking_uri
    from reid_tune.tracking.ui import run_ui

    raise typer.Exit(run_ui(tracking_uri(), port))


@app.command("version")
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _load(spec: Path, overrides: list[str] | None) -> "Experiment":
    from reid_tune.spec.load import load_experiment

    return load_experiment(spec, overrides or ())


def _print_sweep(state: Any, storage: str) -> None:
    from reid_tune.sweep.report import finals_table, leaderboard
    from reid_tune.tables import print_table

    for table in (leaderboard(state), finals_table(state)):
        if table is not None:
            print_table(table)
    registered = state.stages.get("register")
    if registered:
        typer.echo(f"registered: models:/{registered['model']}@{registered['alias']} (version {registered['version']})")
        typer.echo(f"model: {Path(storage) / state.header['name'] / 'export' / 'winner.onnx'}")


def _print(content: Any, format: Format, rows: dict[str, dict[str, Any]]) -> None:
    if format is Format.json:
        typer.echo(json.dumps(content, indent=2))
    elif format is Format.yaml:
        import yaml

        typer.echo(yaml.safe_dump(content, sort_keys=False), nl=False)
    else:
        from reid_tune.tables import print_metrics

        print_metrics(rows)


def main() -> None:
    """Run a command; a fault of the user's or of the surroundings is one sentence and its exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app()
    except ReidTuneError as error:
        typer.echo(f"reid-tune: {error}", err=True)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
