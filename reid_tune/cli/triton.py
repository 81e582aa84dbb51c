"""Commands about serving with Triton."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from reid_tune.cli.common import app

__all__ = ["triton_app"]

triton_app = typer.Typer(help="Serve a model with NVIDIA's Triton Inference Server.", no_args_is_help=True)
app.add_typer(triton_app, name="triton")


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="An .onnx file, models:/NAME@ALIAS or sweep:NAME.")]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Model repository; created if it does not exist.")
]
NameOption = Annotated[
    str | None,
    typer.Option(help="Name of the served model (default: that of the registered model, the sweep or the file)."),
]
FlavourOption = Annotated[Literal["onnxruntime", "tensorrt"], typer.Option(help="Backend that runs the model.")]
MaxBatchOption = Annotated[int, typer.Option(min=1, help="Maximum number of images in a request and in a batch.")]
PreferredOption = Annotated[
    list[int] | None,
    typer.Option("--preferred-batch-size", help="Batch size that the server runs without waiting; may be repeated."),
]
DelayOption = Annotated[
    int, typer.Option(min=0, help="Maximum time in microseconds that a request waits for others to fill a batch.")
]
DeviceOption = Annotated[
    str, typer.Option(help="auto (GPUs if there are any, else the CPU), cpu, gpu (all) or gpu:0,1 (by number).")
]
InstancesOption = Annotated[int, typer.Option(min=1, help="Instances of the model on each device.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of ONNX Runtime in each instance (default: its choice).")
]
VersionOption = Annotated[
    int | None, typer.Option(min=1, help="Add this version (default: 1 for a new model, else the newest).")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the newest version.")]


@triton_app.command("repository")
def triton_repository(
    reference: ModelArgument,
    folder: FolderArgument,
    name: NameOption = None,
    flavour: FlavourOption = "onnxruntime",
    max_batch_size: MaxBatchOption = 16,
    preferred: PreferredOption = None,
    delay: DelayOption = 0,
    device: DeviceOption = "auto",
    instances: InstancesOption = 1,
    threads: ThreadsOption = None,
    version: VersionOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write FOLDER/NAME/config.pbtxt and FOLDER/NAME/VERSION/model.onnx for `tritonserver --model-repository=FOLDER`.

    The configuration has dynamic batching, a warm-up, and the preprocessing as parameters for clients. For TensorRT the
    command that builds the engine is printed too; run it on the GPU that serves the model.
    """
    from reid_tune.deploy.triton.config import ServingOptions
    from reid_tune.deploy.triton.repository import write_repository
    from reid_tune.tasks.common.model_references import ONNX, model_name, resolve_model

    serving = ServingOptions(flavour, max_batch_size, tuple(preferred or ()), delay, device, instances, threads)
    path = resolve_model(reference, ONNX)
    name = name or model_name(reference, path)
    written = write_repository(path, folder, name=name, serving=serving, version=version, overwrite=overwrite)
    typer.echo(written.version_folder)
    if written.engine_command:
        typer.echo("build the engine on the GPU that serves the model, then start the server:", err=True)
        typer.echo(written.engine_command)
