"""Markup in every text of a log that users, files or programs choose: the pages show it, and nothing acts on it."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from reid_tune.journal.checksum import add_checksum
from reid_tune.journal.costs import Cost
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import Event, parse_event, to_line
from reid_tune.journal.state import replay
from reid_tune.report.html import write_page
from reid_tune.report.markdown import SweepPage
from reid_tune.sweep.stages.model_card import render_model_card

from ..helpers.events import write_events
from ..helpers.finished_sweep import simulate

pytestmark = pytest.mark.usefixtures("no_fsync")

EVIL = "</td></pre><script>alert(1)</script><img src=x onerror=alert(1)>[a](javascript:alert(1))&lt;b>"
# Values by which the program decides, all of a few words of its own; a log with others is refused or has no such trial.
DECIDING = {
    "ended_by", "failure", "kind", "limit", "metric", "mode", "run", "runs", "sampler", "scheduler", "stage", "stages",
    "state", "status", "when",
}  # fmt: skip
# Mappings whose keys are names of folders, files and packages.
NAMES = {"extra_tests", "packages", "pretrained", "test_evaluations"}
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Elements(HTMLParser):
    """The tags of a page, with the names of their attributes, its links, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[tuple[str, ...]] = set()
        self.links: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add((tag, *sorted(name for name, _ in attrs)))
        self.links |= {value or "" for name, value in attrs if name in ("href", "src", "xlink:href")}

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile(value: Any, key: str = "") -> Any:
    """Return a value of an event with markup after each of its texts."""
    if key in DECIDING:
        return value
    if isinstance(value, dict):
        return {name + EVIL * (key in NAMES): hostile(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner, key) for inner in value]
    return value + EVIL if isinstance(value, str) else value


def pages(folder: Path, events: list[Event]) -> Iterator[tuple[str, Elements]]:
    """Yield the pages of a log: the report, and the descriptions of run and version as MLflow shows them."""
    write_events(folder / EVENTS, events)
    yield "report", Elements(write_page(folder).read_text())
    description, state = SweepPage(), replay(events)
    for event in events:
        description.apply(event)
    for name, text in (("run", description.markdown({})), ("version", render_model_card(state, folder, Cost()))):
        yield name, Elements(RENDERER.render(text))


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    return read_events(simulate(tmp_path_factory.mktemp("calm"), trials=10).folder / EVENTS)


def test_no_text_of_a_log_is_markup(events: list[Event], tmp_path: Path) -> None:
    calm = dict(pages(tmp_path / "calm", events))
    lines = [hostile(json.loads(to_line(event))) for event in events]
    changed = [parse_event(add_checksum({key: line[key] for key in line if key != "crc32"})) for line in lines]
    for name, elements in pages(tmp_path / "hostile", changed):
        assert elements.tags <= calm[name].tags, name
        assert all(link.startswith("#") for link in elements.links), name
        assert "<script>alert(1)</script>" in elements.text, f"{name} shows it as text"
