"""Commands about serving with Triton."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from reid_tune.cli.common import app

__all__ = ["triton_app"]

triton_app = typer.Typer(help="Serve a model with NVIDIA's Triton Inference Server.", no_args_is_help=True)
app.add_typer(triton_app, name="triton")


@triton_app.command("repository")
def triton_repository(
    reference: Annotated[str, typer.Argument(metavar="MODEL", help="An .onnx file, models:/NAME@ALIAS or sweep:NAME.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The model repository; made where it is missing.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the served model (default: that of registered model, sweep or file).")
    ] = None,
    flavour: Annotated[
        Literal["onnxruntime", "tensorrt"], typer.Option(help="What runs the model in the server.")
    ] = "onnxruntime",
    max_batch_size: Annotated[int, typer.Option(min=1, help="Images at most in a request and in a batch.")] = 16,
    preferred: Annotated[
        list[int] | None,
        typer.Option("--preferred-batch-size", help="A size that the server runs at once; may be given again."),
    ] = None,
    delay: Annotated[
        int, typer.Option(min=0, help="Microseconds that a request may wait for others to fill a batch.")
    ] = 0,
    device: Annotated[
        str, typer.Option(help="auto (GPUs where there are some), cpu, gpu (all) or, by number, gpu:0,1.")
    ] = "auto",
    instances: Annotated[int, typer.Option(min=1, help="How many run side by side on each device.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="ONNX Runtime's threads on the CPU in each instance (default: its choice)."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Add this version (default: 1 of a new model, else the newest).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the newest version.")] = False,
) -> None:
    """Write FOLDER/NAME/config.pbtxt and FOLDER/NAME/VERSION/model.onnx for `tritonserver --model-repository=FOLDER`.

    The configuration has dynamic batching, a warm-up, and what a client must know as parameters. For TensorRT the
    command that builds the engine is printed too; it must run on the GPU that serves.
    """
    from reid_tune.deploy.triton.config import ServingOptions
    from reid_tune.tasks.triton_repository import run_triton_repository

    serving = ServingOptions(flavour, max_batch_size, tuple(preferred or ()), delay, device, instances, threads)
    written = run_triton_repository(reference, folder, name=name, serving=serving, version=version, overwrite=overwrite)
    typer.echo(written.version)
    if written.engine:
        typer.echo("build its engine on the GPU that serves it, then start the server:", err=True)
        typer.echo(written.engine)
