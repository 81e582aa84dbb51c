"""What MLflow's page of a sweep says."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.table import Table

from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import (
    KINDS,
    ArtifactWritten,
    CandidateSelected,
    ChampionRead,
    DriverEnded,
    EpochReported,
    Event,
    RunEnded,
    RunPaused,
    RunRetried,
    RunSuggested,
    SpaceChanged,
    StageDone,
    StagesReopened,
    StageStarted,
    SweepHeader,
    TestSetEvaluated,
    WorkerStarted,
)
from reid_tune.report.markdown import SweepPage, _table, escape_markdown

from ..helpers.events import attempt_started, driver_started, sweep_header
from ..helpers.finished_sweep import simulate


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    return read_events(simulate(tmp_path_factory.mktemp("markdown")).folder / "events.jsonl")


def page(events: list[Event]) -> SweepPage:
    made = SweepPage()
    for event in events:
        made.apply(event)
    return made


def test_the_leaderboard_has_the_trials_with_links_where_there_are_pages(events: list[Event]) -> None:
    made = page(events)
    runs = made.linked_runs()
    text = made.markdown({runs[0]: "#/best"})
    rows = [line for line in text.partition("mAP on the validation split")[2].splitlines() if line.startswith("| ")]
    trials = [row.split("|")[1].strip() for row in rows[2:]]
    assert [int(re.findall(r"\d+", name)[0]) for name in trials] == [int(run[-4:]) for run in runs]
    assert trials[0].endswith("](#/best)") and "](" not in "".join(trials[1:])
    assert len({row.count("|") for row in rows}) == 1, "every row has every column"


def test_it_says_where_the_sweep_stands_and_what_was_decided(events: list[Event]) -> None:
    assert page(events[:1]).markdown({}).splitlines()[0] == "**started**"
    searching = next(i for i, e in enumerate(events) if isinstance(e, StageStarted) and e.stage == "search")
    assert "**at the stage search**" in page(events[: searching + 1]).markdown({})
    whole = page(events).markdown({})
    first = whole.splitlines()[0]
    assert (
        first.startswith("**trial ")
        and " % on validation splits" in first
        and first.endswith("; models:/reid@champion**")
    )
    assert "the winner is trial" in whole
    answers = [paragraph.partition("?** ")[0] for paragraph in whole.split("\n\n")[1:4]]
    questions = ["**Is the winner better than the baseline", "**Is the winner better than the champion"]
    assert answers == [*questions, "**What was spent"]


def test_it_is_never_longer_than_a_store_takes(events: list[Event]) -> None:
    made = page(events)
    assert len(made.linked_runs()) == 20
    short, long = made.markdown({}), made.markdown(dict.fromkeys(made.linked_runs(), "#/" + 500 * "x"))
    assert len(long) <= 8000 < len(made.linked_runs()) * 500
    assert 3 < long.count("](#/") < 20 and "the best" in long and "the winner is trial" in long
    assert short.count("\n| ") > long.count("\n| ")


def test_reports_alone_do_not_change_it(events: list[Event]) -> None:
    made = SweepPage()
    changes = {(type(event), made.apply(event)) for event in events}
    assert (EpochReported, False) in changes and (EpochReported, True) not in changes
    assert {(StageDone, True), (RunSuggested, True), (RunEnded, True)} <= changes


UNCHANGING = {
    "driver_started": driver_started(),
    "driver_ended": DriverEnded(status="FAILED", reason="the disk is full"),
    "attempt": attempt_started(run="trials/0000"),
    "started": WorkerStarted(run="trials/0000"),
    "retry": RunRetried(run="trials/0000", failure="lost_worker", reason="it died"),
    "report": EpochReported(run="trials/0000", epoch=1, metrics={"mAP": 0.5}),
    "champion": ChampionRead(version=1),
    "selected": CandidateSelected(rounds=1, trial=2),
    "artifact": ArtifactWritten(path="report.html", folder=""),
    "test_evaluated": TestSetEvaluated(uid="1", data={"test folders": "abc"}),
}


@pytest.mark.parametrize("kind", UNCHANGING)
def test_an_event_that_the_text_does_not_show_changes_nothing(kind: str) -> None:
    made = page([sweep_header(), StageStarted(stage="search"), RunSuggested(run="trials/0000", parameters={})])
    before = made.markdown({})
    assert made.apply(UNCHANGING[kind]) is False
    if kind != "report":  # whose score the text shows with the next event that changes it
        assert made.markdown({}) == before


def test_all_other_events_of_a_sweep_change_the_text(events: list[Event]) -> None:
    made = SweepPage()
    changing = {event.kind for event in events if made.apply(event)}
    for event in (
        RunPaused(run="trials/0000", epoch=1, reason=""),
        StagesReopened(stages=["test"], runs=[]),
        SpaceChanged(space={}, weights={}, pretrained={}),
    ):
        assert made.apply(event) is True
        changing.add(event.kind)
    others = KINDS.keys() - UNCHANGING.keys() - {"train", "epoch", "registered"}
    assert changing == others and SweepHeader.kind in others


class Visible(HTMLParser):
    """The text that a page shows, and the tags in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![picture](https://example.org/x.png)",
    "<https://example.org>",
    "see https://example.org/a_b_c",
    "[a]: javascript:alert(1)",
    "[text][1]",
    "a | b || c",
    "`code` and ``more``",
    "**bold** _italic_ __strong__ snake_case ~~gone~~",
    "# heading",
    "- item",
    "+ item",
    "1. item",
    "12) item",
    "> quote",
    "---",
    "===",
    "```",
    "&lt;b&gt; &#60; few & far",
    "back\\slash \\* and $x^2$",
    "-0.3 +0.5 [-0.3, +0.5]",
    "models:/reid@champion (version 3)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_shown_as_it_is(text: str) -> None:
    shown = Visible(RENDERER.render(f"before\n\n{escape_markdown(text)}\n\nafter"))
    assert (shown.text.split(), shown.tags) == (f"before {text} after".split(), {"p"})


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_is_shown_as_it_is(text: str) -> None:
    table = Table("name", text, title=text)
    table.add_row("7", text)
    shown = Visible(RENDERER.render(_table(table, lambda cell: f"[{cell.rstrip()}](#/runs/7)")))
    assert shown.text.split() == f"{text} name {text} 7 {text}".split()
    assert shown.tags == {"p", "table", "thead", "tbody", "tr", "th", "td", "a"}


@given(st.text("<>[]()!:/`*_|~$&#;-+=1. ab\\\n", max_size=30))
def test_no_text_has_a_meaning(text: str) -> None:
    lines = "\n".join(" ".join(line.split()) for line in text.split("\n") if line.strip())
    shown = Visible(RENDERER.render(escape_markdown(lines)))
    assert shown.text.split() == lines.split() and shown.tags <= {"p"}


def test_values_of_a_sweep_are_escaped(events: list[Event]) -> None:
    hostile = "</td><script>alert('|')</script>"
    run = RunSuggested(run="trials/0000", parameters={"model.pretrained_model_path": hostile}, origin=hostile)
    made = page([events[0], run, RunEnded(run=run.run, state="failed", epoch=0, reason=hostile)])
    text = made.markdown({})
    assert "<script" not in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
