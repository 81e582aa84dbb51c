import io

from rich.console import Console

from reid_tune.journal.costs import Cost
from reid_tune.journal.events import Event, RunEnded, RunPaused, RunSuggested, StageDone, StageStarted
from reid_tune.journal.state import SweepState, replay
from reid_tune.report.live import LiveView, status_text

from ..helpers.report_events import events

SPENT = Cost(0.05, 0.0, 0.1)


def test_the_status_says_what_runs_what_is_best_and_what_is_left() -> None:
    lines = status_text(replay(events("search")), 9, SPENT).splitlines()
    assert lines == [
        "search: 5 of 9 trials started: 1 running, 2 finished, 1 stopped, 1 failed (1 out of memory)",
        "mAP: best 50.0 % (trial 2), trial 0 37.5 %; rung 2: 2 of 3 continued",
        "0.05 hours, 0.10 CPU-hours; about 3 min left by the plan",
    ]
    assert status_text(replay(events()[:4]), 9, SPENT).splitlines()[:2] == [
        "search: 0 of 9 trials started",
        "mAP: no full-length trial yet",
    ]
    done = status_text(replay(events()), 9, SPENT)
    assert done.startswith("done: 5 of 9") and done.endswith("0.10 CPU-hours")


def test_a_paused_trial_has_not_continued_at_its_rung() -> None:
    pause = RunPaused(run="trials/0003", epoch=2, reason="below rung 2")
    lines = [pause if isinstance(event, RunEnded) and event.run == pause.run else event for event in events("search")]
    status = status_text(replay(lines), 9, SPENT)
    assert "1 running, 1 paused, 2 finished, 1 failed" in status and "rung 2: 2 of 3 continued" in status


def test_after_the_search_the_status_counts_repeats_and_refits() -> None:
    lines = [*events("search"), StageDone(stage="search", result={}), StageStarted(stage="confirm")]
    lines += [RunSuggested(run=f"confirm/0000-{number}", parameters={}) for number in (1, 2)]
    lines.append(RunEnded(run="confirm/0000-1", state="finished", epoch=2))
    status = status_text(replay(lines), 9, SPENT)
    assert status.startswith("confirm: 2 of 4 runs started: 1 running, 1 finished\nmAP: best 50.0 %")


def watch(console: Console, lines: list[Event]) -> None:
    state = SweepState()
    with LiveView(console, 5) as view:
        for event in lines:
            state.apply(event)
            view(event, state)


def test_trouble_with_tracking_is_said_once_and_so_is_its_end() -> None:
    console = Console(file=io.StringIO(), width=200)
    state, words = SweepState(), iter(["", "MLflow: 3 events behind", "MLflow: 9 events behind", "", "", "MLflow: 1"])
    with LiveView(console, 5) as view:
        view.tracking = lambda: next(words)
        for event in events()[:6]:
            state.apply(event)
            view(event, state)
    assert isinstance(console.file, io.StringIO)
    problems = [line for line in console.file.getvalue().splitlines() if "MLflow" in line]
    assert problems == ["MLflow: 3 events behind", "MLflow has caught up", "MLflow: 1"]


def test_trouble_with_tracking_stands_below_the_live_table() -> None:
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True)
    state = SweepState()
    with LiveView(console, 5) as view:
        view.tracking = lambda: "MLflow: 3 events behind: ConnectionError"
        for event in events():
            state.apply(event)
            view(event, state)
    assert isinstance(console.file, io.StringIO)
    assert "MLflow: 3 events behind: ConnectionError" in console.file.getvalue()


def test_without_a_terminal_changes_are_lines() -> None:
    console = Console(file=io.StringIO(), width=20)
    watch(console, events())
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "stage search",
        "trial 0 finished at epoch 2: mAP 37.5 %",
        "trial 1 failed at epoch 0 (the GPU is full)",
        "trial 2 finished at epoch 2: mAP 50.0 %",
        "trial 3 stopped at epoch 2: mAP 12.5 % (below rung 2)",
        "stage refit",
        "refit/winner: training on all identities",
        "refit/winner failed at epoch 0 (the disk)",
    ]


def test_in_a_terminal_the_table_stands_at_the_end() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=50)
    watch(console, events("search"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "0 (spec)" in text and "mAP: best 50.0 % (trial 2), trial 0 37.5 %" in text


def test_a_terminal_with_few_lines_shows_the_best_and_the_status() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=13)
    watch(console, events("search"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "the best 3 of 5 trials" in text and "1 out of memory" in text and "…" not in text


def test_what_looks_like_markup_is_printed_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=200)
    reason = "cannot read [/a/b.jpg] of [bold]"
    watch(console, [*events()[:5], RunEnded(run="trials/0000", state="failed", epoch=0, reason=reason)])
    assert isinstance(console.file, io.StringIO)
    assert "cannot read [/a/b.jpg] of [bold]" in console.file.getvalue()
