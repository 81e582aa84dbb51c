"""Commands for one model: train, evaluate, inference, export."""

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
from reid_tune.errors import StoppedError

__all__: list[str] = []


@app.command()
def train(
    spec: SpecOption,
    overrides: OverridesArgument = None,
    track: Annotated[bool, typer.Option("--track", help="Track the run in MLflow (MLFLOW_TRACKING_URI).")] = False,
    allow_env: AllowEnvOption = None,
) -> None:
    """Train one model from a spec; continue the training in the results folder, if any.

    Checkpoints, experiment.yaml and status.json go to train.results_dir (default: train below results_dir).
    MLFLOW_EXPERIMENT_NAME and MLFLOW_RUN_NAME set the names in MLflow.
    """
    loaded = load_spec(spec, overrides, "train")
    from reid_tune.tasks.train import describe_stop, run_train

    try:
        typer.echo(run_train(loaded.experiment, loaded.user_keys, track=track))
    except KeyboardInterrupt:
        raise StoppedError(describe_stop(loaded.experiment)) from None


@app.command()
def evaluate(
    spec: SpecOption,
    overrides: OverridesArgument = None,
    format: FormatOption = Format.table,
    allow_env: AllowEnvOption = None,
) -> None:
    """Score evaluate.checkpoint (a file, a folder of them, models:/NAME@ALIAS or sweep:NAME) on the test folders.

    Writes metrics.json and status.json to evaluate.results_dir (default: evaluate below results_dir), and the plots to
    evaluate.output_cmc_curve_plot, output_sampled_matches_plot and output_distances_plot if these are set. metrics.json
    contains the decision threshold for the false-match rate evaluate.fmr.
    """
    experiment = load_spec(spec, overrides, "evaluate").experiment
    from reid_tune.tasks.evaluate import run_evaluate

    evaluation = run_evaluate(experiment)
    section = experiment.evaluate
    for picture in (
        section.output_cmc_curve_plot,
        section.output_sampled_matches_plot,
        section.output_distances_plot,
    ):
        if picture:
            typer.echo(f"picture: {picture}", err=True)
    print_result(evaluation.as_dict(), format, evaluation.rows())


@app.command()
def inference(spec: SpecOption, overrides: OverridesArgument = None, allow_env: AllowEnvOption = None) -> None:
    """Write the embeddings of all query and gallery images as .json, .npz or .parquet.

    The model is inference.checkpoint. The file is inference.output_file, by default embeddings.json in
    inference.results_dir (inference below results_dir). `reid-tune score` reads the .npz.
    """
    experiment = load_spec(spec, overrides, "inference").experiment
    from reid_tune.tasks.inference import run_inference

    inferred = run_inference(experiment)
    typer.echo(inferred, err=True)
    typer.echo(inferred.path)


@app.command()
def export(
    reference: Annotated[
        str | None, typer.Argument(help="sweep:NAME, models:/NAME@ALIAS or a checkpoint; no spec is needed.")
    ] = None,
    overrides: OverridesArgument = None,
    spec: Annotated[
        Path | None, typer.Option("-e", "--experiment_spec_file", help="Experiment spec, a YAML file.")
    ] = None,
    allow_env: AllowEnvOption = None,
) -> None:
    """Write export.checkpoint as one ONNX file that is verified against PyTorch.

    The file is export.onnx_file, by default next to the checkpoint, or in the current folder for sweep: and models:/.
    """
    from reid_tune.config.yaml_reader import parse_overrides
    from reid_tune.tasks.export import run_export

    pairs = [text for text in [reference, *(overrides or [])] if text is not None]
    # Without a reference the first argument is an override.
    model = pairs.pop(0) if pairs and "=" not in pairs[0] else None
    arguments = {"export.checkpoint": model} if model else None
    experiment = load_spec(spec, pairs, "export", arguments).experiment if spec else None
    file, parity = run_export(experiment, model, parse_overrides(pairs))
    typer.echo(parity, err=True)
    typer.echo(file)
