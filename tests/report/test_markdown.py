"""What MLflow's page of a sweep says."""

import pytest

from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import EpochReported, Event, RunEnded, RunSuggested, StageDone, StageStarted
from reid_tune.report.markdown import SweepPage

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
    text = made.markdown({"trials/0000": "#/zero"})
    rows = [line for line in text.partition("mAP on the validation split")[2].splitlines() if line.startswith("| ")]
    trials = [row.split("|")[1].strip() for row in rows[2:]]
    assert [int(name.strip("[").split()[0]) for name in trials] == [int(run[-4:]) for run in runs]
    assert "[0 (spec)](#/zero)" in trials and "](" not in "".join(name for name in trials if "spec" not in name)
    assert len({row.count("|") for row in rows}) == 1, "every row has every column"


def test_it_says_where_the_sweep_stands_and_what_was_decided(events: list[Event]) -> None:
    assert page(events[:1]).markdown({}) == "**started**"
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
