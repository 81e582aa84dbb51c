"""MLflow's pages in a real Chromium: their texts, and a picture of each."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from reid_tune.tracking.leaderboard_view import experiment_page

__all__ = ["CHROMIUM", "Pages", "chromium"]

CHROMIUM = shutil.which("chromium")
WINDOW = {"width": 1400, "height": 900}
PATIENCE = 60_000  # milliseconds that a part of a page gets on a busy machine
# Choices of a user at the first visit: the pages of classical machine learning, and the assistant closed.
VISITED = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}
CELLS = "all => all.map(it => [it.closest('.ag-row').ariaRowIndex, it.getAttribute('col-id'), it.innerText])"


@contextmanager
def chromium(address: str, folder: Path) -> "Iterator[Pages]":
    """Start a browser for the server at `address` that can reach only this machine; its pictures go to `folder`."""
    visited = [{"name": key, "value": value} for key, value in VISITED.items()]
    local_only = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    with (
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=CHROMIUM, args=[local_only]) as browser,
        browser.new_context(
            viewport=WINDOW,
            timezone_id="UTC",
            storage_state={"cookies": [], "origins": [{"origin": address, "localStorage": visited}]},
        ) as context,
    ):
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield Pages(context.new_page(), address, folder)


class Pages:
    """Each method opens a page, waits until all of it is there, takes its picture and returns its content."""

    def __init__(self, page: Page, address: str, folder: Path) -> None:
        self._page, self._address, self._folder = page, address, folder

    def runs(self, experiment: str, parent: str, shown: Sequence[str], hidden: Sequence[str]) -> dict[str, dict]:
        """The rows of an experiment's table, by run, with the texts of its columns, such as ``metrics.`val/mAP` ``.

        Args:
            experiment: Id of the experiment.
            parent: The run whose nested runs are to be shown.
            shown: Columns to show that MLflow hides by default.
            hidden: Columns to hide that MLflow shows by default.
        """
        self._open(f"experiments/{experiment}/runs")
        link = self._page.get_by_role("link", name=parent, exact=True)
        self._page.locator(".ag-row", has=link).get_by_role("button").first.click()
        self._toggle_columns([*hidden, *shown])
        self._fit_columns()
        count = self._page.get_by_text("matching runs").inner_text().split()[0]
        expect(self._page.locator(".ag-pinned-left-cols-container .ag-row")).to_have_count(int(count))
        self._picture("runs")
        return self._rows()

    def leaderboard(self, experiment: str, trials: int) -> dict[str, dict]:
        """The rows of the saved view of a sweep with so many trials, in order; see `runs`."""
        self._open(experiment_page(experiment).removeprefix("#/"))
        expect(self._page.locator(".ag-pinned-left-cols-container .ag-row")).to_have_count(trials)
        self._fit_columns()
        self._picture("leaderboard")
        return self._rows()

    def curves(self, experiment: str, points: Mapping[str, int]) -> None:
        """Charts of metrics over the runs that `runs` has shown before, each with so many points in all."""
        self._open(f"experiments/{experiment}/runs?compareRunsMode=CHART")
        self._await_charts(points)
        self._picture("curves")

    def overview(self, experiment: str, run: str) -> str:
        """A run with nested runs and a long description, all of it."""
        self._open(f"experiments/{experiment}/runs/{run}")
        self._page.get_by_test_id("key-value-Child runs").get_by_role("link").first.wait_for()
        self._page.get_by_text("Show more").click()
        self._page.get_by_text("Show less").wait_for()
        self._picture("overview")
        return self._page.get_by_role("main").inner_text().replace("\N{NO-BREAK SPACE}", "")

    def charts(self, experiment: str, run: str, points: Mapping[str, int]) -> str:
        """Charts of metrics of a run, each with so many points."""
        self._open(f"experiments/{experiment}/runs/{run}/model-metrics")
        self._await_charts(points)
        self._picture("charts")
        return self._page.get_by_role("main").inner_text()

    def artifact(self, experiment: str, run: str, path: str) -> tuple[str, tuple[int, int]]:
        """A picture among a run's artifacts: the text around it, and its width and height in pixels."""
        self._open(f"experiments/{experiment}/runs/{run}/artifacts/{path}")
        shown = self._page.get_by_alt_text(path)
        expect(shown).to_have_js_property("complete", True)
        width, height = shown.evaluate("it => [it.naturalWidth, it.naturalHeight]")
        self._picture("artifact")
        return self._page.get_by_role("main").inner_text(), (width, height)

    def model(self, name: str) -> str:
        """A registered model's versions, one of which has an alias at least."""
        self._open(f"models/{name}")
        table = self._page.get_by_test_id("model-version-table")
        table.get_by_text("@").first.wait_for()
        self._picture("model")
        return table.inner_text().replace("\N{NO-BREAK SPACE}", " ")

    def version(self, name: str, number: str) -> str:
        """One version of a registered model: its description, its tags and its schema."""
        self._open(f"models/{name}/versions/{number}")
        for part in ("note-editor-preview-content", "editable-table"):
            self._page.get_by_test_id(part).wait_for()
        self._page.get_by_text(re.compile(r"^Outputs \(")).wait_for()
        self._picture("version")
        return self._page.get_by_role("main").inner_text()

    def _open(self, path: str) -> None:
        # Between two paths of one page the browser loads nothing.
        self._page.goto("about:blank")
        self._page.goto(f"{self._address}/#/{path}")

    def _toggle_columns(self, names: Sequence[str]) -> None:
        menu = self._page.get_by_role("button", name="Columns", exact=True)
        menu.click()
        entries = self._page.get_by_test_id("column-selector-tree").locator("[class$=tree-title]")
        for name in names:
            self._page.get_by_placeholder("Search columns").fill(name)
            entries.filter(has_text=re.compile(f"^{re.escape(name)}$")).click()
        menu.click()

    def _fit_columns(self) -> None:
        # From right to left, as columns out of sight have no edges; a real click would scroll their names alone.
        for edge in reversed(self._page.locator(".ag-header-container .ag-header-cell .ag-header-cell-resize").all()):
            edge.dispatch_event("dblclick")

    def _rows(self) -> dict[str, dict[str, str]]:
        rows: dict[int, dict[str, str]] = {}
        for index, column, text in self._page.locator(".ag-cell").evaluate_all(CELLS):
            rows.setdefault(int(index), {})[column] = text
        # The cell begins with the run's color.
        return {rows[index]["attributes.`Run Name`"].split("\n")[-1]: rows[index] for index in sorted(rows)}

    def _await_charts(self, points: Mapping[str, int]) -> None:
        self._page.get_by_placeholder("Search metric charts").fill("|".join(f"^{metric}$" for metric in points))
        cards = self._page.get_by_test_id("experiment-view-compare-runs-card")
        expect(cards).to_have_count(len(points))
        for metric, number in points.items():
            card = cards.filter(has_text=f"({metric})")
            expect(card.locator("path.point")).to_have_count(number)

    def _picture(self, name: str) -> None:
        # Off the button that was clicked last, which has another color under the pointer.
        self._page.mouse.move(0, 0)
        self._page.screenshot(path=self._folder / f"{name}.png", animations="disabled")
