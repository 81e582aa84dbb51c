"""Description of a sweep on its page in MLflow, as Markdown."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.table import Table

from reid_tune.journal.costs import Cost, CostLedger
from reid_tune.journal.events import (
    Event,
    ModelRegistered,
    RunEnded,
    RunPaused,
    RunSuggested,
    SpaceChanged,
    StageDone,
    StagesReopened,
    StageStarted,
    SweepHeader,
)
from reid_tune.journal.state import SweepState, trial_run
from reid_tune.report.answers import answer_questions
from reid_tune.report.formatting import format_interval, format_score, trial_label
from reid_tune.report.sentences import (
    confirm_notes,
    registration_sentence,
    search_end_sentence,
    space_change_sentences,
)
from reid_tune.report.summary import ranked_trials
from reid_tune.report.tables import confirm_table, finalist_table, leaderboard
from reid_tune.report.test_set_sentences import seed_sentences
from reid_tune.tables import format_percent

__all__ = ["SweepPage", "answer_paragraphs", "escape_markdown"]

_MAX_TRIALS = 20  # rows of the leaderboard, fewer where the text would exceed _MAX_LENGTH
_MAX_LENGTH = 8000  # characters that a store accepts
_PADDING = 2 * "\N{NO-BREAK SPACE}"  # MLflow's page leaves no space between columns
_CHANGING = (
    SweepHeader,
    SpaceChanged,
    StageStarted,
    StageDone,
    StagesReopened,
    RunSuggested,
    RunPaused,
    RunEnded,
    ModelRegistered,
)
_SPECIAL = re.compile(
    r"[\\`*<|~$]"  # code, emphasis, tags, columns and formulas
    r"|\](?=[(\[:])"  # the text of a link
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; inside a word it is none
    r"|&(?=#|\w)"  # a character by its name
    r"|(?<=:)//"  # an address, which becomes a link
    r"|^\s*(?:[#>=]|[-+](?![\d.])|\d+(?=[.)](?:\s|$)))",  # at the start of a line: headings, quotes and lists
    re.MULTILINE,
)
_FINALIST_COLUMNS = 4  # label, mAP, mINP, Rank-1


class SweepPage:
    """The description of a sweep, updated by its events; see `Description` of tracking."""

    def __init__(self) -> None:
        self.state, self._ledger, self._spent = SweepState(), CostLedger(), Cost()

    def apply(self, event: Event) -> bool:
        """Apply an event, and return whether it changes the text."""
        self.state.apply(event)
        self._ledger.apply(event)
        is_changing = isinstance(event, _CHANGING)
        if is_changing:
            self._spent = self._ledger.total()
        return is_changing

    def linked_runs(self) -> Sequence[str]:
        """Return the runs of the leaderboard."""
        return [trial.name for trial in ranked_trials(self.state)[:_MAX_TRIALS]]

    def markdown(self, address: Mapping[str, str]) -> str:
        """Return the text, with links for the runs that have an address.

        Args:
            address: URL by run.
        """

        def linked(cell: str) -> str:
            number = re.match(r"\d+", cell)
            url = address.get(trial_run(int(number[0]))) if number else None
            return f"[{cell.rstrip()}]({url}){_PADDING}" if url else cell

        for trials in range(_MAX_TRIALS, -1, -1):
            text = "\n\n".join(self._paragraphs(trials, linked))
            if len(text) <= _MAX_LENGTH:
                break
        return text

    def _paragraphs(self, trials: int, linked: Callable[[str], str]) -> Iterator[str]:
        state = self.state
        yield f"**{escape_markdown(_headline(state))}**"
        yield from answer_paragraphs(state, self._spent)
        yield from (escape_markdown(sentence).replace("\n", "  \n") for sentence in _decisions(state))
        if (finalists := finalist_table(state)) is not None:
            yield _table(finalists, linked, _FINALIST_COLUMNS)
        if (candidates := confirm_table(state)) is not None:
            yield _table(candidates, linked)
        if trials and state.trials:
            yield _table(leaderboard(state, trials), linked)


def answer_paragraphs(state: SweepState, spent: Cost) -> Iterator[str]:
    """Yield the answers to the three questions about a sweep, each with its question in bold type."""
    for answer in answer_questions(state, spent):
        yield f"**{answer.question}** {escape_markdown(f'{answer.verdict}. {answer.explanation}')}"


def _decisions(state: SweepState) -> Iterator[str]:
    yield from space_change_sentences(state)
    if ended := search_end_sentence(state):
        yield ended
    if notes := confirm_notes(state.stages.get("confirm", {})):
        yield f"confirm: {notes}"
    yield from seed_sentences(state)
    if registered := registration_sentence(state):
        yield registered


def _headline(state: SweepState) -> str:
    """Return the winner, or before `confirm` the stage and the best trial; MLflow shows nothing else until a click."""
    if confirm_result := state.stages.get("confirm"):
        row = next(row for row in confirm_result["trials"] if row["number"] == confirm_result["winner"])
        against = f", {format_interval(row['against_trial0'])} against trial 0" if row["against_trial0"] else ""
        score = f"{state.metric} {format_percent(row['mean'])} % on validation splits{against}"
        model = registration_sentence(state).partition(" (")[0].removeprefix("registered: ")
        return "; ".join(filter(None, (f"trial {trial_label(row['number'])}: {score}", model)))
    undone = [name for name in state.stage_starts if name not in state.stages]
    stage = f"at the stage {undone[-1]}" if undone else "; ".join(f"{name} done" for name in state.stages) or "started"
    best = next(iter(state.finished()), None)
    if best is None:
        return stage
    return f"{stage}; best {state.metric} {format_score(best.last(state.metric))} % (trial {best.number})"


def _table(table: Table, linked: Callable[[str], str], max_columns: int | None = None) -> str:
    """Return a table of texts with its title above it.

    Args:
        linked: Function that may turn a cell of the first column into a link.
        max_columns: Number of columns; all of them if None.
    """
    columns = table.columns[:max_columns]
    heads = [_cell(str(column.header)) for column in columns]
    cells = [[_cell(str(cell)) for cell in column.cells] for column in columns]
    lines = [heads, ["---:" if column.justify == "right" else "---" for column in columns]]
    lines += [[linked(first), *others] for first, *others in zip(*cells, strict=True)]
    return f"{escape_markdown(str(table.title))}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return escape_markdown(" ".join(text.split())) + _PADDING


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is: names, values and reasons may have tags, links or columns in them.

    Characters with a meaning become HTML's character references, which every renderer of Markdown and every table cell
    shows as the character.
    """
    return _SPECIAL.sub(lambda match: "".join(map(_reference, match[0])), text)


def _reference(character: str) -> str:
    return character if character.isspace() else f"&#{ord(character)};"
