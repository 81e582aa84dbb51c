"""What MLflow's page of a sweep says: the leaderboard and what was decided, in Markdown."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.table import Table

from reid_tune.journal.events import AttemptStarted, EpochReported, Event, RunRetried
from reid_tune.journal.state import SweepState, trial_run
from reid_tune.report.confirm import explain_winner
from reid_tune.report.sentences import registration_sentence, search_end_sentence, seed_sentences
from reid_tune.report.summary import (
    confirm_table,
    format_interval,
    leaderboard,
    ranked_trials,
    test_results_table,
    trial_label,
)
from reid_tune.tables import format_percent

__all__ = ["SweepPage"]

_TRIALS = 20  # of the leaderboard, or fewer where the text would be longer than a store takes
_LONGEST = 8000
_ROOM = 2 * "\N{NO-BREAK SPACE}"  # as MLflow's page leaves none between columns
_FINALS = 4  # columns of the results on test: whose, mAP, mINP, Rank-1


class SweepPage:
    """A sweep by its events, see `Description` of tracking."""

    def __init__(self) -> None:
        self.state = SweepState()

    def apply(self, event: Event) -> bool:
        """Take one event in; whether it changes the text. Reports alone do not, as they come all the time."""
        self.state.apply(event)
        return not isinstance(event, AttemptStarted | EpochReported | RunRetried)

    def named(self) -> Sequence[str]:
        """The runs of the leaderboard."""
        return [trial.name for trial in ranked_trials(self.state)[:_TRIALS]]

    def markdown(self, address: Mapping[str, str]) -> str:
        """The text, with links where a run has an `address`."""

        def linked(cell: str) -> str:
            found = re.match(r"\d+", cell)
            page = address.get(trial_run(int(found[0]))) if found else None
            return f"[{cell.rstrip()}]({page}){_ROOM}" if page else cell

        for trials in range(_TRIALS, -1, -1):
            text = "\n\n".join(self._parts(trials, linked))
            if len(text) <= _LONGEST:
                break
        return text

    def _parts(self, trials: int, linked: Callable[[str], str]) -> Iterator[str]:
        state = self.state
        yield f"**{_headline(state)}**"
        yield from (line.replace("\n", "  \n") for line in self._words())
        if (tested := test_results_table(state)) is not None:
            yield _table(tested, linked, _FINALS)
        if (confirmed := confirm_table(state)) is not None:
            yield _table(confirmed, linked)
        if trials and state.trials:
            yield _table(leaderboard(state, trials), linked)

    def _words(self) -> Iterator[str]:
        state = self.state
        if ended := search_end_sentence(state):
            yield ended
        if confirmed := state.stages.get("confirm"):
            yield explain_winner(confirmed, state.costs)
        yield from seed_sentences(state)
        if registered := registration_sentence(state):
            yield registered


def _headline(state: SweepState) -> str:
    """The verdict, which is all that MLflow shows before somebody asks for more; before it the stage and the best."""
    if confirmed := state.stages.get("confirm"):
        row = next(row for row in confirmed["trials"] if row["number"] == confirmed["winner"])
        against = f", {format_interval(row['against_trial0'])} against trial 0" if row["against_trial0"] else ""
        model = registration_sentence(state).partition(" (")[0].removeprefix("registered: ")
        found = (
            f"trial {trial_label(row['number'])}: {state.metric} {format_percent(row['mean'])} % on hold-outs{against}"
        )
        return "; ".join(filter(None, (found, model)))
    undone = [name for name in state.stage_starts if name not in state.stages]
    stage = f"at the stage {undone[-1]}" if undone else "; ".join(f"{name} done" for name in state.stages) or "begun"
    best = next(iter(state.finished()), None)
    return (
        f"{stage}; best {state.metric} {format_percent(best.last(state.metric))} % (trial {best.number})"
        if best
        else stage
    )


def _table(table: Table, linked: Callable[[str], str], most: int | None = None) -> str:
    """A table of texts, its title above it; the first column may be linked, and only `most` columns shown."""
    shown = table.columns[:most]
    heads = [_cell(str(column.header)) for column in shown]
    columns = [[_cell(str(cell)) for cell in column.cells] for column in shown]
    lines = [heads, ["---:" if column.justify == "right" else "---" for column in shown]]
    lines += [[linked(first), *rest] for first, *rest in zip(*columns, strict=True)]
    return f"{table.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") + _ROOM
