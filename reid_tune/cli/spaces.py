"""Commands about search spaces."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reid_tune.cli.common import (
    AllowEnvOption,
    Format,
    FormatOption,
    SweepFileArgument,
    SweepOverridesArgument,
    app,
    print_result,
)

if TYPE_CHECKING:
    from reid_tune.search_space.space import SearchSpace

__all__: list[str] = []

space_app = typer.Typer(help="Check and show search spaces.", no_args_is_help=True)
app.add_typer(space_app, name="space")


@space_app.command("show")
def space_show(
    file: SweepFileArgument,
    overrides: SweepOverridesArgument = None,
    samples: Annotated[int, typer.Option(min=0, help="Number of trials to suggest.")] = 10,
    format: FormatOption = Format.table,
    allow_env: AllowEnvOption = None,
) -> None:
    """Check a search space; print its ranges and the first trials, as suggested before any result."""
    from reid_tune.report.space import first_suggestions, ranges_table, suggestions_table
    from reid_tune.search.space_check import SAMPLE_COUNT, validate_space
    from reid_tune.search_space.load import load_sweep
    from reid_tune.sweep.stages.rerank import list_settings
    from reid_tune.tables import format_count, print_table

    sweep = load_sweep(file, overrides or [])
    for warning in validate_space(sweep, SAMPLE_COUNT).warnings:
        typer.echo(f"warning: {warning}", err=True)
    suggestions = first_suggestions(sweep, samples)
    settings = len(list_settings(sweep))
    if format is not Format.table:
        content = _content(sweep.space)
        if settings:
            content["re_ranking"] = _content(sweep.re_ranking) | {"settings": settings}
        print_result(content | {"samples": suggestions}, format, {})
        return
    print_table(ranges_table(sweep.space))
    if settings:
        title = f"re-ranking: {format_count(settings, 'setting')} in the stage rerank"
        print_table(ranges_table(sweep.re_ranking, title))
    print_table(suggestions_table(sweep.space, suggestions))


def _content(space: "SearchSpace") -> dict[str, Any]:
    return {"space": space.as_entries(), "constraints": [constraint.text for constraint in space.constraints]}
