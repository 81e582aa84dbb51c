"""Commands that send images to a Triton server."""

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reid_tune.cli.common import Format, FormatOption, print_result
from reid_tune.cli.triton import triton_app
from reid_tune.errors import InputError

if TYPE_CHECKING:
    from reid_tune.deploy.triton.client import TritonModel

__all__: list[str] = []

_MAX_CONCURRENT = 4  # requests in flight with --async
_SAMPLE_BATCH_SIZE = 16  # images per request of e2e
_PORTS = {"http": 8000, "https": 8000, "grpc": 8001}


class Protocol(StrEnum):
    """Protocols of the server; https is http with TLS."""

    http = "http"
    https = "https"
    grpc = "grpc"


class Mode(StrEnum):
    """Kinds of models."""

    reid = "Re_identification"


QueryArgument = Annotated[Path, typer.Argument(metavar="QUERY_DIR", help="Folder of query images.")]
NameOption = Annotated[str, typer.Option("-m", "--model-name", help="Name of the model on the server.")]
VersionOption = Annotated[
    str, typer.Option("-x", "--model-version", help="Version of the model (default: the server's choice).")
]
BatchOption = Annotated[int, typer.Option("-b", "--batch-size", min=1, help="Images per request.")]
SampleBatchOption = Annotated[
    int | None,
    typer.Option(
        "-b", "--batch-size", min=1, help="Images per request.", show_default="16, or the model's maximum batch size"
    ),
]
ProtocolOption = Annotated[Protocol, typer.Option("-i", "--protocol", help="Protocol; https is http with TLS.")]
UrlOption = Annotated[
    str | None,
    typer.Option("-u", "--url", help="HOST:PORT of the server.", show_default="localhost:8000, gRPC localhost:8001"),
]
AsyncOption = Annotated[bool, typer.Option("-a", "--async", help=f"Keep {_MAX_CONCURRENT} requests in flight.")]
AuthorityOption = Annotated[
    Path | None, typer.Option(help="File with the certificate of your own authority, for https.", metavar="FILE")
]
OutputOption = Annotated[Path, typer.Option("--output_path", help="Folder of the output files.")]
RepositoryOption = Annotated[
    Path | None, typer.Option(help="Start a separate server on this model repository.", metavar="FOLDER")
]


@triton_app.command("client")
def triton_client(
    query: QueryArgument,
    name: NameOption,
    test_dir: Annotated[Path | None, typer.Option("--test_dir", help="Folder of gallery images.")] = None,
    version: VersionOption = "",
    batch_size: BatchOption = 1,
    mode: Annotated[Mode, typer.Option(help="Kind of the model.")] = Mode.reid,
    protocol: ProtocolOption = Protocol.http,
    url: UrlOption = None,
    concurrent: AsyncOption = False,
    output_path: OutputOption = Path("."),
    authority: AuthorityOption = None,
) -> None:
    """Write the embeddings that the server returns for all images to OUTPUT_PATH/results.json, queries first.

    The options and the file are those of TAO's client. Images are preprocessed as the server's model metadata say.
    """
    from reid_tune.tasks.triton_client import RESULTS, embed_folders

    max_concurrent = _MAX_CONCURRENT if concurrent else 1
    with _open_model(protocol, url, authority, name, version, max_concurrent) as model:
        embedded = embed_folders(model, query, test_dir, output_path / RESULTS, batch_size=batch_size)
    _print_left_out(embedded.errors)
    left_out = f", {len(embedded.errors)} left out" if embedded.errors else ""
    typer.echo(
        f"{embedded.queries} queries and {embedded.gallery} gallery images{left_out}: "
        f"embeddings of {embedded.dimension} values",
        err=True,
    )
    typer.echo(embedded.path)


@triton_app.command("e2e")
def triton_e2e(
    query: QueryArgument,
    name: NameOption,
    test_dir: Annotated[Path, typer.Option("--test_dir", help="Folder of gallery images.")],
    version: VersionOption = "",
    batch_size: SampleBatchOption = None,
    protocol: ProtocolOption = Protocol.http,
    url: UrlOption = None,
    authority: AuthorityOption = None,
    identities: Annotated[int, typer.Option(min=1, help="Number of sampled identities.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the sample.")] = 0,
    output_path: OutputOption = Path("."),
    repository: RepositoryOption = None,
    server: Annotated[str, typer.Option(help="Program that --repository starts.")] = "tritonserver",
    format: FormatOption = Format.table,
) -> None:
    """Embed a sample of identities through the server; score it with and without re-ranking, and plot it.

    Writes sampled_matches.png, cmc_curve.png and metrics.json to OUTPUT_PATH.
    """
    from reid_tune.deploy.triton.process import local_server
    from reid_tune.tasks.triton_e2e import PICTURES, run_end_to_end

    if repository:
        _require_local(protocol, url)
    with ExitStack() as stack:
        if repository:
            url = stack.enter_context(local_server(server, repository))[protocol.value].url
        model = stack.enter_context(_open_model(protocol, url, authority, name, version, _MAX_CONCURRENT))
        size = batch_size or min(_SAMPLE_BATCH_SIZE, model.max_batch_size)
        result = run_end_to_end(model, query, test_dir, output_path, identities=identities, seed=seed, batch_size=size)
    _print_left_out(result.errors)
    if result.errors:
        typer.echo(f"{len(result.errors)} left out", err=True)
    for picture in PICTURES:
        typer.echo(f"picture: {output_path / picture}", err=True)
    print_result(result.as_dict(), format, {"plain": result.plain.report(), "re-ranked": result.re_ranked.report()})


def _require_local(protocol: Protocol, url: str | None) -> None:
    """Raise InputError if options of a remote server are combined with --repository."""
    if protocol is Protocol.https:
        raise InputError("--repository starts a server without TLS: use -i http or -i grpc.")
    if url is not None:
        raise InputError(f"--repository starts a separate server, which is not at -u {url}: give one of the two.")


def _print_left_out(errors: tuple[str, ...]) -> None:
    for error in errors:
        typer.echo(f"left out: {error}", err=True)


def _open_model(
    protocol: Protocol, url: str | None, authority: Path | None, name: str, version: str, max_concurrent: int
) -> "TritonModel":
    from reid_tune.deploy.triton.address import Address
    from reid_tune.deploy.triton.client import TritonModel

    if authority and protocol is not Protocol.https:
        raise InputError("--authority is for -i https.")
    if version and not (version.isascii() and version.isdecimal()):
        raise InputError(f"-x {version}: give the number of a version, or leave it out.")
    address = f"localhost:{_PORTS[protocol.value]}" if url is None else url
    return TritonModel(Address(protocol.value, address, authority), name, version, max_concurrent)
