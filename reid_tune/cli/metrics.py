"""Commands about features of any model in files: score, compare, rerank-search, threshold."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reid_tune.cli.common import DeviceOption, Format, FormatOption, app, print_result

__all__: list[str] = []

Features = Annotated[
    Path, typer.Argument(help=".npz with query_ and gallery_ features, ids and cameras, or a file of inference.")
]
ReRanking = Annotated[
    str | None, typer.Option("--re-ranking", metavar="K1,K2,LAMBDA", help="Re-rank, for example 20,6,0.3.")
]


class By(StrEnum):
    """Parts of the queries that are scored separately."""

    camera = "camera"
    identity = "identity"


@app.command()
def score(
    features: Features,
    re_ranking: ReRanking = None,
    by: Annotated[
        By | None, typer.Option("--by", help="Score each pair of cameras or each identity too, the weakest first.")
    ] = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.table,
) -> None:
    """Score the features of any model: mAP, mINP and Rank-k."""
    from reid_tune.tasks.score import run_score

    scored = run_score(features, re_ranking, by.value if by else None, device)
    counted = _count([features], "score")
    print_result(scored.as_dict(), format, scored.rows())
    typer.echo(counted, err=True)
    if scored.parts and format is Format.table:
        print_result({}, format, scored.part_rows())


@app.command()
def compare(
    features: Annotated[list[Path], typer.Argument(help="Two feature files or more; the first is the baseline.")],
    re_ranking: ReRanking = None,
    cmc: Annotated[Path | None, typer.Option("--cmc", help="Plot of all CMC curves: .png, .pdf or .svg.")] = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.table,
) -> None:
    """Test whether models are better than the first one, by their features of the same images.

    Differences are paired by query; their 95 % intervals come from a bootstrap over identities.
    """
    from reid_tune.tasks.compare import run_compare

    comparison = run_compare(features, re_ranking, cmc, device)
    counted = _count(features, "compare")
    print_result(comparison.as_dict(), format, comparison.rows())
    typer.echo(counted, err=True)
    for line in comparison.verdicts():
        typer.echo(line, err=True)
    if cmc:
        typer.echo(f"picture: {cmc}", err=True)


@app.command()
def rerank_search(
    features: Features,
    k1: Annotated[str, typer.Option("--k1", metavar="K1,...", help="Reciprocal neighbours.")] = "10,15,20,25",
    k2: Annotated[str, typer.Option("--k2", metavar="K2,...", help="Averaged neighbours.")] = "3,6,10",
    weights: Annotated[
        str, typer.Option("--lambda", metavar="X,...", help="Weights of the original distance.")
    ] = "0.1,0.3,0.5",
    metric: Annotated[str, typer.Option("--metric", help="Metric that decides: mAP, mINP or Rank-1.")] = "mAP",
    picture: Annotated[Path | None, typer.Option("--picture", help="Plot of all settings: .png, .pdf or .svg.")] = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.table,
) -> None:
    """Find the best setting of the k-reciprocal re-ranking for some features by a grid search.

    Use features of a validation set: the score of a setting that was chosen on the test set is too optimistic there.
    """
    from reid_tune.tasks.rerank_search import run_rerank_search

    search = run_rerank_search(features, k1, k2, weights, metric, picture, device)
    counted = _count([features], "rerank-search")
    print_result(search.as_dict(), format, search.rows())
    typer.echo(counted, err=True)
    if (hidden := len(search.scores) - len(search.rows()) + 1) > 0:
        typer.echo(f"{hidden} more settings are in --format json.", err=True)
    typer.echo(search, err=True)
    if search.edges:
        typer.echo(f"the best setting is at the edge of {', '.join(search.edges)}: extend the grid there.", err=True)
    if picture:
        typer.echo(f"picture: {picture}", err=True)


@app.command()
def threshold(
    features: Features,
    fmr: Annotated[float, typer.Option("--fmr", help="False-match rate among pairs of different people.")] = 0.001,
    far: Annotated[float, typer.Option("--far", help="False-alarm rate of the open-set identification.")] = 0.01,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Plot of the distances: .png, .pdf or .svg.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="JSON file of the result, for export.threshold.")
    ] = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.table,
) -> None:
    """Find the distance threshold of a match for a given false-match rate.

    The open-set identification rate is measured too: how many enrolled people are identified at a false-alarm rate.
    """
    from reid_tune.tasks.threshold import run_threshold

    result = run_threshold(features, fmr, far, picture, output, device)
    counted = _count([features], "threshold")
    print_result(result.as_dict(), format, result.rows())
    typer.echo(counted, err=True)
    if result.open_set.reason:
        typer.echo(f"no open-set identification: {result.open_set.reason}.", err=True)
    elif format is Format.table:
        print_result(None, format, result.open_set_rows())
    for name, path in (("picture", picture), ("threshold", output)):
        if path:
            typer.echo(f"{name}: {path}", err=True)


def _count(paths: list[Path], command: str) -> str:
    """Count an evaluation of the test set that the files are of, and return lines about it."""
    from reid_tune.tasks.common.scored_features import count_scored_features

    return "\n".join(count_scored_features(paths, command))
