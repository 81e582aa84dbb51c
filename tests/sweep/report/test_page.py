import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from reid_tune.errors import InputError
from reid_tune.events.log import EventLog
from reid_tune.sweep.journal import EVENTS
from reid_tune.sweep.progress import read_sweep
from reid_tune.sweep.report.page import write_page
from reid_tune.sweep.report.repeat import repeat_commands

from ..finished import simulate

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
    best, zero = state.finished()[0], state.trials[0]
    page = page_of(sweep.folder)
    states = [trial.state for trial in state.trials]
    assert min(states.count(name) for name in ("finished", "stopped", "failed")) > 0

    value, base = best.last("mAP") or 0, zero.last("mAP") or 0
    for part in (
        "Winner against trial 0",
        f"trial {best.number}, mAP on the hold-out {100 * value:.1f} %",
        f"trial 0, mAP on the hold-out {100 * base:.1f} %",
        f"{100 * (value - base):+.1f} points",
        "Numbers of selection and of test differ.",
        "models:/reid@champion",
        "12 single queries.",
        "Warning: few & far",
        "12936 images of 601 identities to train with",
        *repeat_commands(state, best, sweep.folder / "spec.yaml").values(),
    ):
        assert part in page.text, part
    assert page.below("")[:2] == [
        [f"winner (trial {best.number}), ONNX", "50.0 (43.8-56.2)", "25.0", "75.0", "100.0", "100.0", "12", "40"],
        [f"winner (trial {best.number}), checkpoint", "50.0", "25.0", "75.0", "100.0", "100.0", "12", "40"],
    ]
    trials = page.below("trial")
    assert len(trials) == 30 and trials[0][:4] == [str(best.number), "finished", "6", f"{100 * value:.1f}"]
    assert sorted(row[1] for row in trials) == sorted(states)
    failed = [trial for trial in state.trials if trial.state == "failed"]
    assert [row[0] for row in page.below("run")] == [trial.name for trial in failed]
    assert all(row[-1] == "mAP is nan in epoch 1" for row in page.below("run"))
    assert [row[:2] for row in page.below("stage")] == [
        [stage, "done"] for stage in ("preflight", "search", "refit", "export", "test", "register")
    ]
    assert ["train.optim.base_lr", "{loguniform: [0.0001, 0.01]}", "0.00035"] in [
        row[:3] for row in page.below("searched")
    ]
    assert page.tags.count("svg") == 3 + 4  # history, curves and importances, and each searched key
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
        log.append("sweep", name=EVIL, sweep=sweep, spec={key: EVIL, "dataset.train_dataset_dir": EVIL})
        log.append("driver", pid=1, host=EVIL, command=[])
        log.append("stage", stage="preflight", state="done", result={"warnings": [EVIL], "rungs": [1]})
        log.append("stage", stage=EVIL, state="begun", result={})
        for number, value in enumerate((EVIL, "b")):
            run = {"run": f"trials/{number:04d}"}
            log.append("suggested", **run, parameters={key: value})
            log.append("report", **run, epoch=1, metrics={"mAP": 0.5})
            log.append("ended", **run, state=("failed", "finished")[number], epoch=1, reason=EVIL)
        test = {"winner": {"plain": {"mAP": 0.5, "protocol": EVIL}}}
        log.append("stage", stage="test", state="done", result=test)
        register = {"model": EVIL, "alias": EVIL, "version": EVIL}
        log.append("stage", stage="register", state="done", result=register)
    return folder


def test_whatever_a_log_says_is_text(tmp_path: Path) -> None:
    page = page_of(hostile(tmp_path / "s"))
    content = (tmp_path / "s" / "report.html").read_text()
    assert "script" not in page.tags and "<script" not in content
    assert page.text.count(EVIL) > 10
    assert page.tags.count("svg") == 3 and EVIL[:11] in page.text


def test_a_sweep_in_every_stage_of_its_life_has_a_page(tmp_path: Path) -> None:
    begun = page_of(simulate(tmp_path / "begun", until="").folder)
    assert "interrupted at the start" in begun.text and "No trial has reached its last epoch yet." in begun.text
    assert "svg" not in begun.tags and "Repeat" not in begun.text
    searched = page_of(simulate(tmp_path / "searched", trials=6, until="search").folder)
    assert "ended after search" in searched.text and "is still to come" in searched.text
    assert "Importances need 10 full-length trials" in searched.text
    assert [row[1] for row in searched.below("stage")] == ["done"] * 2 + ["not begun"] * 4


def test_a_run_that_its_driver_has_left_is_not_called_running(tmp_path: Path) -> None:
    folder = simulate(tmp_path, until="").folder
    with EventLog(folder / EVENTS) as log:
        log.append("stage", stage="search", state="begun", result={})
        log.append("suggested", run="trials/0000", parameters={})
    page = page_of(folder)
    assert page.below("trial")[0][:2] == ["0 (spec)", "interrupted"] and "(1 interrupted)" in page.text


def test_a_page_elsewhere_and_one_that_cannot_be(tmp_path: Path) -> None:
    folder = simulate(tmp_path, trials=2).folder
    elsewhere = write_page(folder, tmp_path / "new" / "page.html")
    assert elsewhere.read_text().startswith("<!DOCTYPE html>") and not (folder / "report.html").exists()
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
    found = re.match(r"<html><head><title>([\d ]+)</title>", done.stdout)
    assert found is not None, done.stderr
    return [int(text) for text in found[1].split()]
