"""Commands for the features of any model, in .npz files: score."""

from pathlib import Path
from typing import Annotated

import typer

from reid_tune.cli.common import Format, FormatOption, app, show

__all__: list[str] = []


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
    show(metrics, format, {"re-ranked" if re_ranking else "plain": metrics})
