"""Commands about search spaces."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reid_tune.cli.common import Format, FormatOption, app, print_result

if TYPE_CHECKING:
    from reid_tune.search_space.space import SearchSpace

__all__: list[str] = []

space_app = typer.Typer(help="Look at search spaces.", no_args_is_help=True)
app.add_typer(space_app, name="space")


@space_app.command("show")
def space_show(
    file: Annotated[Path, typer.Argument(help="Search-space file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key=value overrides the spec, sweep.KEY=value the file.", metavar="[KEY=VALUE]..."),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Trials to suggest.")] = 10,
    format: FormatOption = Format.table,
) -> None:
    """Check a search space; print its ranges and the first trials, as suggested while nothing is known."""
    from reid_tune.report.space import first_suggestions, ranges_table, suggestions_table
    from reid_tune.search.validation import SAMPLE_COUNT, validate_space
    from reid_tune.search_space.load import load_sweep
    from reid_tune.sweep.stages.rerank import list_settings
    from reid_tune.tables import format_count, print_table

    sweep = load_sweep(file, overrides or [])
    validate_space(sweep, SAMPLE_COUNT)
    suggested = first_suggestions(sweep, samples)
    tried = len(list_settings(sweep))
    if format is Format.table:
        print_table(ranges_table(sweep.space))
        if tried:
            print_table(
                ranges_table(sweep.re_ranking, f"re-ranking: {format_count(tried, 'setting')} in the stage rerank")
            )
        print_table(suggestions_table(sweep.space, suggested))
    else:
        content = _content(sweep.space) | (
            {"re_ranking": _content(sweep.re_ranking) | {"settings": tried}} if tried else {}
        )
        print_result(content | {"samples": suggested}, format, {})


def _content(space: "SearchSpace") -> dict[str, Any]:
    return {"space": space.as_entries(), "constraints": [constraint.text for constraint in space.constraints]}
