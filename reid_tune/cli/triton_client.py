"""Commands that ask a Triton server."""

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

_AT_ONCE = 4  # requests under way with --async
_USUAL = 16  # images in a request of e2e
_PORTS = {"http": 8000, "https": 8000, "grpc": 8001}


class Protocol(StrEnum):
    """Ways to a server; https is TLS."""

    http = "http"
    https = "https"
    grpc = "grpc"


class Mode(StrEnum):
    """What a model is for."""

    reid = "Re_identification"


Query = Annotated[Path, typer.Argument(metavar="QUERY_DIR", help="Folder of query images.")]
Name = Annotated[str, typer.Option("-m", "--model-name", help="Name of the model on the server.")]
Version = Annotated[str, typer.Option("-x", "--model-version", help="Its version (default: the server's choice).")]
Batch = Annotated[int, typer.Option("-b", "--batch-size", min=1, help="Images in a request.")]
Way = Annotated[Protocol, typer.Option("-i", "--protocol", help="How to ask; https is TLS.")]
Place = Annotated[
    str | None,
    typer.Option("-u", "--url", help="HOST:PORT of the server.", show_default="localhost:8000, gRPC localhost:8001"),
]
Together = Annotated[bool, typer.Option("-a", "--async", help=f"Keep {_AT_ONCE} requests under way.")]
Authority = Annotated[
    Path | None, typer.Option(help="File with the certificate of your own authority, for https.", metavar="FILE")
]


@triton_app.command("client")
def triton_client(
    query: Query,
    name: Name,
    test_dir: Annotated[Path | None, typer.Option("--test_dir", help="Folder of gallery images.")] = None,
    version: Version = "",
    batch_size: Batch = 1,
    mode: Annotated[Mode, typer.Option(help="Kind of the model.")] = Mode.reid,
    protocol: Way = Protocol.http,
    url: Place = None,
    together: Together = False,
    output_path: Annotated[Path, typer.Option("--output_path", help="Folder of results.json.")] = Path("."),
    authority: Authority = None,
) -> None:
    """Write the embeddings of all images, as the server gives them, to OUTPUT_PATH/results.json, queries first.

    The options and the file are those of TAO's client. Images are prepared by what the server tells of the model.
    """
    from reid_tune.tasks.triton_client import RESULTS, embed_folders

    with _model(protocol, url, authority, name, version, _AT_ONCE if together else 1) as model:
        found = embed_folders(model, query, test_dir, output_path / RESULTS, batch_size=batch_size)
    _tell(found.broken)
    left_out = f", {len(found.broken)} left out" if found.broken else ""
    typer.echo(
        f"{found.queries} queries and {found.gallery} gallery images{left_out}: embeddings of {found.dimension} values",
        err=True,
    )
    typer.echo(found.path)


@triton_app.command("e2e")
def triton_e2e(
    query: Query,
    name: Name,
    test_dir: Annotated[Path, typer.Option("--test_dir", help="Folder of gallery images.")],
    version: Version = "",
    batch_size: Annotated[
        int | None,
        typer.Option("-b", "--batch-size", min=1, help="Images in a request.", show_default="16, or the model's most"),
    ] = None,
    protocol: Way = Protocol.http,
    url: Place = None,
    authority: Authority = None,
    identities: Annotated[int, typer.Option(min=1, help="How many identities are drawn.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Decides which.")] = 0,
    output_path: Annotated[Path, typer.Option("--output_path", help="Folder of the pictures and metrics.json.")] = Path(
        "."
    ),
    repository: Annotated[
        Path | None, typer.Option(help="Start a server of its own on this model repository.", metavar="FOLDER")
    ] = None,
    server: Annotated[str, typer.Option(help="The program that --repository starts.")] = "tritonserver",
    format: FormatOption = Format.table,
) -> None:
    """Embed a sample of identities through the server, score it plain and re-ranked, and draw it.

    Writes sampled_matches.png, cmc_curve.png and metrics.json to OUTPUT_PATH.
    """
    from contextlib import ExitStack

    from reid_tune.deploy.triton.process import local_server
    from reid_tune.tasks.triton_e2e import PICTURES, run_end_to_end

    if repository and protocol is Protocol.https:
        raise InputError("--repository starts a server without TLS: use -i http or -i grpc.")
    if repository and url is not None:
        raise InputError(f"--repository starts a server of its own, which is not at -u {url}: give one of the two.")
    with ExitStack() as stack:
        if repository:
            url = stack.enter_context(local_server(server, repository))[protocol.value].url
        model = stack.enter_context(_model(protocol, url, authority, name, version, _AT_ONCE))
        size = batch_size or min(_USUAL, model.max_batch_size)
        found = run_end_to_end(model, query, test_dir, output_path, identities=identities, seed=seed, batch_size=size)
    _tell(found.broken)
    if found.broken:
        typer.echo(f"{len(found.broken)} left out", err=True)
    for picture in PICTURES:
        typer.echo(f"picture: {output_path / picture}", err=True)
    rows = {"plain": found.plain.report(), "re-ranked": found.re_ranked.report()}
    print_result(found.as_dict(), format, rows)


def _tell(broken: tuple[str, ...]) -> None:
    for fault in broken:
        typer.echo(f"left out: {fault}", err=True)


def _model(
    protocol: Protocol, url: str | None, authority: Path | None, name: str, version: str, max_concurrent: int
) -> "TritonModel":
    from reid_tune.deploy.triton.address import Address
    from reid_tune.deploy.triton.client import TritonModel

    if authority and protocol is not Protocol.https:
        raise InputError("--authority is for -i https.")
    if version and not (version.isascii() and version.isdecimal()):
        raise InputError(f"-x {version}: give the number of a version, or leave it out.")
    place = f"localhost:{_PORTS[protocol.value]}" if url is None else url
    return TritonModel(Address(protocol.value, place, authority), name, version, max_concurrent)
