import dataclasses
import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from reid_tune.errors import InputError
from reid_tune.journal.event_log import EVENTS, EventLog
from reid_tune.journal.events import (
    EpochReported,
    RunEnded,
    RunRetried,
    RunSuggested,
    StageDone,
    StageStarted,
)
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.stages import STAGES
from reid_tune.report.answers import baseline_answer, champion_answer
from reid_tune.report.formatting import format_interval
from reid_tune.report.html import write_page
from reid_tune.report.reproduce import reproduce_commands
from reid_tune.report.summary import winner_run
from reid_tune.search.pareto import pareto_front

from ..helpers.events import driver_started, sweep_header
from ..helpers.finished_sweep import simulate
from ..helpers.simulated_driver import SPACE

pytestmark = pytest.mark.usefixtures("no_fsync")

EVIL = "<script>alert('x')</script> & \"y\" $z$"
VOID = {"meta", "br"}
CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """The tags, attributes, visible text and tables of a page whose tags all close."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def below(self, head: str) -> list[list[str]]:
        """The rows of the table whose first head is this one."""
        return next(rows[1:] for rows in self.tables if rows[0][0] == head)


def page_of(folder: Path) -> Page:
    return Page(write_page(folder).read_text())


def test_a_finished_sweep_with_failures_and_stopped_trials(tmp_path: Path) -> None:
    sweep = simulate(tmp_path)
    state, _ = read_sweep(sweep.folder)
    best, confirmed, tested = winner_run(state), state.stages["confirm"], state.stages["test"]["models"]
    rows = {row["number"]: row for row in confirmed["trials"]}
    assert best is not None and best.number != 0
    won, zero = rows[best.number], rows[0]
    page = page_of(sweep.folder)
    states = [trial.state for trial in state.trials]
    failures = states.count("failed")
    assert min(states.count(name) for name in ("finished", "stopped", "failed")) > 0

    for part in (
        "Winner against trial 0",
        f"trial {best.number}, mean mAP of 5 repeats {100 * won['mean']:.1f} %",
        f"trial 0, mean mAP of 5 repeats {100 * zero['mean']:.1f} %",
        f"{100 * won['against_trial0']['mean']:+.1f} points",
        f"{100 * won['against_trial0']['low']:+.1f} .. {100 * won['against_trial0']['high']:+.1f}",
        *dataclasses.astuple(baseline_answer(state)),
        *dataclasses.astuple(champion_answer(state)),
        "The search ended because its budget of 30 trials is used up.",
        "has been evaluated 2 times",
        "Scores of the selection and of the test differ.",
        "Registered: models:/reid@champion (version 3).",
        "12 single queries, 36 gallery images",
        "On A Processor, 2 threads",
        f"Failures: {failures} non finite",
        "Warning: few & far",
        "12936 training images of 601 identities",
        *reproduce_commands(state, best, sweep.folder / "spec.yaml").values(),
    ):
        assert part in page.text, part
    plain = tested["winner"]["plain"], tested["trial0"]["plain"], tested["winner"]["against_trial0"]["plain"]["mAP"]
    assert page.below("on the test folders")[0] == [
        "mAP, plain",
        *(f"{100 * metrics['mAP']:.1f}" for metrics in plain[:2]),
        format_interval(plain[2]),
    ]
    assert [row[0] for row in page.below("")[:2]] == [
        f"winner (trial {best.number}), ONNX{x}" for x in ("", ", re-ranked")
    ]
    candidates, trials = (rows[1:] for rows in page.tables if rows[0][0] == "trial")
    means = sorted((row["mean"] for row in confirmed["trials"]), reverse=True)
    assert [row[1] for row in candidates] == [f"{100 * mean:.1f}" for mean in means] + 5 * [""], "six have raced"
    top = state.finished()[0]
    assert len(trials) == 30 and trials[0][:4] == [
        str(top.number),
        "finished",
        "6",
        f"{100 * (top.last('mAP') or 0):.1f}",
    ]
    assert next(row for row in trials if row[0] == "1")[-2:] == ["earlier/7", ""]
    assert sorted(row[1] for row in trials) == sorted(states)
    failed = [trial for trial in state.trials if trial.state == "failed"]
    assert [row[0] for row in page.below("run")] == [trial.name for trial in failed]
    assert all(row[5] == "mAP is nan in epoch 1" for row in page.below("run"))
    stages = page.below("stage")
    assert [row[:2] for row in stages] == [*([stage, "done"] for stage in STAGES), ["all", ""]]
    assert [row[7] for row in stages if row[7]] == ["30", "21", "2"]
    assert ["torch", "2.14.1"] in page.below("of the last driver")
    assert ["commit", "0123456789abcdef, with changes"] in page.below("of the last driver")
    assert ["train.optim.base_lr", "{loguniform: [0.0001, 0.01]}", "0.00035"] in [
        row[:3] for row in page.below("searched")
    ]
    assert page.tags.count("svg") == 1 + 5 + 4  # confirm; the charts of the search; each searched key
    assert yaml.safe_load((sweep.folder / "spec.yaml").read_text())["train"]["num_epochs"] == 6


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = page_of(simulate(tmp_path, trials=5).folder)
    assert not {"script", "link", "img", "iframe", "object", "base", "form", "image"} & set(page.tags)
    links = [value for name, value in page.attributes if name.endswith(("href", "src"))]
    assert links and all(value.startswith("#") for value in links)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    content = (tmp_path / "runs" / "simulated" / "report.html").read_text()
    assert set(re.findall(r"https?:[^\s\"'<]*", content)) == {"http://www.w3.org/1999/xlink"}
    assert not re.findall(r"url\((?!#)|@import", content)
    assert "default-src 'none'" in content


def hostile(folder: Path) -> Path:
    """A log in which everything that is text is hostile."""
    key = f"train.{EVIL}"
    sweep = {
        "space": {key: {"choice": [EVIL, "b"]}},
        "objective": {"metric": "mAP"},
        "budget": {"trials": 2},
        "registry": {"model": EVIL},
    }
    with EventLog(folder / EVENTS) as log:
        log.append(sweep_header(name=EVIL, sweep=sweep, spec={key: EVIL, "dataset.train_dataset_dir": EVIL}))
        log.append(driver_started(pid=1, host=EVIL, command=[], environment={"packages": {EVIL: EVIL}, "commit": EVIL}))
        log.append(StageDone(stage="preflight", result={"warnings": [EVIL], "rungs": [1]}))
        log.append(StageStarted(stage=EVIL))
        for number, value in enumerate((EVIL, "b")):
            run = {"run": f"trials/{number:04d}"}
            log.append(RunSuggested(**run, parameters={key: value}))
            log.append(EpochReported(**run, epoch=1, metrics={"mAP": 0.5}))
            log.append(RunEnded(**run, state=("failed", "finished")[number], epoch=1, reason=EVIL))
        plain = {"mAP": 0.5, "Rank-1": 0.5, "protocol": EVIL}
        latency = {"device": EVIL, "threads": 1, "batches": {}}
        models = {"winner": {"plain": plain, "latency": latency}}
        log.append(StageDone(stage="test", result={"models": models, "test_evaluations": {EVIL: 1}}))
        register = {"model": EVIL, "alias": EVIL, "version": EVIL, "reason": EVIL}
        log.append(StageDone(stage="register", result=register))
    return folder


def test_whatever_a_log_says_is_text(tmp_path: Path) -> None:
    page = page_of(hostile(tmp_path / "s"))
    content = (tmp_path / "s" / "report.html").read_text()
    assert "script" not in page.tags and "<script" not in content
    assert page.text.count(EVIL) > 10
    assert page.tags.count("svg") == 4 and EVIL[:11] in page.text


def test_a_sweep_in_every_stage_of_its_life_has_a_page(tmp_path: Path) -> None:
    begun = page_of(simulate(tmp_path / "begun", until="").folder)
    assert "interrupted at the start" in begun.text and "No trial has reached its last epoch yet." in begun.text
    assert "svg" not in begun.tags and "Reproduce" not in begun.text
    searched = page_of(simulate(tmp_path / "searched", trials=6, until="search").folder)
    assert "ended after search" in searched.text and "the test are still to come" in searched.text
    assert "Importances need 8 trials with a score" in searched.text
    assert [row[1] for row in searched.below("stage")] == ["done"] * 2 + ["not started"] * 6 + [""]
    assert "Best of the search against trial 0" in searched.text
    confirmed = page_of(simulate(tmp_path / "confirmed", trials=6, until="confirm").folder)
    assert "Winner against trial 0" in confirmed.text and "The test, on other images" in confirmed.text


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    space = SPACE | {"model.backbone": {"choice": ["resnet18", "resnet34"]}}
    objectives = [{"metric": "mAP"}, {"metric": "parameters"}]
    folder = simulate(tmp_path, trials=8, sections={"space": space, "objective": objectives}).folder
    page, (state, _) = page_of(folder), read_sweep(folder)
    best = {str(trial.number) for trial in pareto_front(state.trials, "mAP", ["parameters"])}
    assert best and "The Pareto front" in page.text
    rows = next(rows for rows in page.tables if rows[0][:2] == ["trial", "state"])
    at, cost = rows[0].index("front"), rows[0].index("parameters")
    assert {row[0].split()[0] for row in rows[1:] if row[at] == "yes"} == best
    assert all(row[cost].endswith(" M") for row in rows[1:])


def test_a_budget_and_failures_that_were_overcome_are_shown(tmp_path: Path) -> None:
    sections = {"budget": {"trials": 4, "hours": 1.5, "cpu_hours": 3}}
    folder = simulate(tmp_path, until="search", sections=sections).folder
    with EventLog(folder / EVENTS) as log:
        log.append(RunRetried(run="trials/0001", failure="lost_worker", reason="gone"))
        log.append(RunRetried(run="trials/0001", failure="lost_worker", reason="gone"))
    (folder / "trials" / "0001" / "log.txt").write_text("the end")
    page = page_of(folder)
    assert page.below("stage")[-1][:5] == ["budget", "", "90 min", "", "3.00"]
    run, _, kinds, *_, log_path = page.below("run")[0]
    assert (run, kinds, log_path) == ("trials/0001", "2 lost worker", "trials/0001/log.txt")


def test_a_run_that_its_driver_has_left_is_not_called_running(tmp_path: Path) -> None:
    folder = simulate(tmp_path, until="").folder
    with EventLog(folder / EVENTS) as log:
        log.append(StageStarted(stage="search"))
        log.append(RunSuggested(run="trials/0000", parameters={}))
    page = page_of(folder)
    assert page.below("trial")[0][:2] == ["0 (spec)", "interrupted"] and "(1 interrupted)" in page.text


def test_a_page_elsewhere_and_one_that_cannot_be(tmp_path: Path) -> None:
    folder = simulate(tmp_path, trials=2).folder
    page = write_page(folder, tmp_path / "new" / "page.html")
    assert page.read_text().startswith("<!DOCTYPE html>") and not (folder / "report.html").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a folder: name a file"):
        write_page(folder, tmp_path / "new")
    with pytest.raises(InputError, match="cannot make the folder"):
        write_page(folder, tmp_path / "file" / "page.html")
    with pytest.raises(InputError, match="holds no sweep"):
        write_page(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


@pytest.mark.integration
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(tmp_path: Path, width: int) -> None:
    folders = [simulate(tmp_path / "simulated").folder, hostile(tmp_path / "hostile")]
    pages = [*(write_page(folder).read_text() for folder in folders), "<!DOCTYPE html><p style='width: 2000px'>x"]
    fine, hostile_too, wide = shown_widths(pages, tmp_path, width)
    assert (fine, hostile_too) == (width, width) and wide >= 2000


def shown_widths(pages: list[str], folder: Path, width: int) -> list[int]:
    """How wide a browser lays pages out in frames of a width."""
    frame = f"<iframe style='border: 0; width: {width}px; height: 9999px' srcdoc='{{}}'></iframe>"
    frames = "".join(frame.format(html.escape(page)) for page in pages)
    ask = "document.title = Array.from(frames, frame => frame.document.documentElement.scrollWidth).join(' ')"
    (folder / "frames.html").write_text(f"<title></title>{frames}<script>onload = () => {{ {ask} }}</script>")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'user'}"]
    command = [str(CHROMIUM), *flags, "--dump-dom", (folder / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    title = re.match(r"<html><head><title>([\d ]+)</title>", done.stdout)
    assert title is not None, done.stderr
    return [int(text) for text in title[1].split()]
