"""A whole sweep whose MLflow server is unreachable, hangs and ends, and MLflow's pages about it afterwards."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reid_tune.journal.events import EpochReported, StageStarted
from reid_tune.tracking.store import client

from ..helpers.browser_pages import CHROMIUM, Pages, chromium
from ..helpers.cli_sweep import Bench
from ..helpers.mlflow_servers import Server, free_port, mlflow_server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

METRICS = ("val/mAP", "val/mINP", "val/Rank-1")
VISIBLE = 10  # runs that MLflow draws where nobody has chosen
SHOWN = ("val/mAP", "train.optim.triplet_loss_margin", "train.optim.base_lr", "state")
HIDDEN = ("Dataset", "Source", "Models")
PICTURE = ("refit/winner", "test/winner-cmc.png")

Shown = tuple[str, str, str]  # address of a server, experiment, registered model


class Outages:
    """Starts, stops and kills a server as the sweep in a log proceeds; called repeatedly in the meantime."""

    def __init__(self, folder: Path, bench: Bench) -> None:
        folder.mkdir()
        self._folder, self._bench, self.stack = folder, bench, ExitStack()
        self._port, self._server = free_port(), None
        self.uri = f"http://127.0.0.1:{self._port}"
        self._steps: list[tuple[Callable[[], bool], Callable[[], Any]]] = [
            (lambda: bench.count(EpochReported) >= 1, self.start),
            (lambda: bench.count(EpochReported) >= 4, lambda: self._signal(signal.SIGSTOP)),
            (lambda: bench.count(EpochReported) >= 7, lambda: self._signal(signal.SIGCONT)),
            # Started again at once, as that takes long on a busy machine and register needs it.
            (lambda: len(bench.reports("confirm/")) >= 1, self.restart),
            (lambda: self._started("register"), lambda: None),
        ]

    def __call__(self) -> bool:
        """Do what is due; whether all is done."""
        if self._steps and self._steps[0][0]():
            self._steps.pop(0)[1]()
        return not self._steps

    def start(self) -> None:
        self._server: Server | None = self.stack.enter_context(mlflow_server(self._folder, port=self._port))

    def restart(self) -> None:
        self.stack.close()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.signal(number)

    def _started(self, stage: str) -> bool:
        return any(isinstance(event, StageStarted) and event.stage == stage for event in self._bench.events)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("outages"), budget={"trials": 3})


@pytest.fixture(scope="module")
def server(bench: Bench) -> Iterator[str]:
    """The address of a server that now has the whole of a sweep."""
    outages = Outages(bench.folder / "server", bench)
    bench.environment |= {"MLFLOW_TRACKING_URI": outages.uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    with outages.stack:
        status, output = bench.interrupt(outages, signal.SIGCONT, "sweep", "sweep.yaml")
        assert status == 0, output
        assert f"the MLflow store {outages.uri} does not" in output, "unreachable as the sweep began"
        bench.run("sync", "small")
        yield outages.uri


@pytest.fixture(scope="module")
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A finished sweep on a server: that of the outages, or for pictures of REID_TUNE_PAGES_STORE."""
    store = os.environ.get("REID_TUNE_PAGES_STORE")
    if not store:
        yield request.getfixturevalue("server"), "small", "small"
        return
    with mlflow_server(tmp_path_factory.mktemp("server"), backend=store) as other:
        connection = client(other.uri)
        experiment = next(item.name for item in connection.search_experiments() if item.name != "Default")
        yield other.uri, experiment, connection.search_registered_models()[0].name


def test_after_all_outages_the_store_equals_that_of_an_undisturbed_one(
    server: str, bench: Bench, snapshot: Callable
) -> None:
    log = bench.folder / "runs" / "small"
    (log / "tracking.cursor.json").rename(log / "kept.json")
    calm = f"sqlite:///{bench.folder}/calm.db"
    assert f"{len(bench.events)} events sent" in bench.run("sync", "small", "--to", calm).stdout
    (log / "kept.json").rename(log / "tracking.cursor.json")
    assert "nothing was left" in bench.run("sync", "small").stdout
    disturbed, undisturbed = (_comparable(snapshot("small", client(uri))) for uri in (server, calm))
    assert disturbed.keys() == undisturbed.keys()
    for name, run in disturbed.items():
        for key, value in run.items():
            assert value == undisturbed[name][key], f"{key} of {name}"
    reports = bench.reports()
    assert sum(len(run["metrics"].get("train/loss", ())) for run in disturbed.values()) == len(reports) > 10
    assert disturbed["parent"]["status"] == "FINISHED"
    assert {path for run in disturbed.values() for path in run["files"]} == {"spec.yaml", "test", "report.html"}


def _comparable(runs: dict[str, Any]) -> dict[str, Any]:
    """Without the registered model, which is not part of the log, and links, which have the ids of their store."""
    for run in runs.values():
        run["files"] = [path for path in run["files"] if not path.startswith("model-")]
        run["tags"].pop("mlflow.note.content", None)
    return runs


@pytest.fixture
def pages(shown: Shown, tmp_path: Path) -> Iterator[Pages]:
    with chromium(shown[0], Path(os.environ.get("REID_TUNE_PICTURES", tmp_path))) as browser_pages:
        yield browser_pages


@pytest.fixture
def connected(shown: Shown) -> Any:
    return client(shown[0])


@pytest.fixture
def experiment(shown: Shown, connected: Any) -> str:
    return connected.get_experiment_by_name(shown[1]).experiment_id


@pytest.fixture
def runs(experiment: str, connected: Any) -> dict[str, Any]:
    return {run.info.run_name: run for run in connected.search_runs([experiment])}


@in_a_browser
def test_the_table_has_all_runs_of_the_sweep_and_charts_compare_them(
    pages: Pages, shown: Shown, experiment: str, runs: dict[str, Any], connected: Any
) -> None:
    table = pages.runs(experiment, shown[1], SHOWN, HIDDEN)
    assert table.keys() == runs.keys()
    assert {shown[1], "trials/0000", "confirm/0000-1", "refit/winner"} <= table.keys()
    for name, run in runs.items():
        cell = table[name][f"metrics.`{METRICS[0]}`"]
        assert (None if cell == "-" else float(cell)) == run.data.metrics.get(METRICS[0])
    visible = [runs[name].info.run_id for name in list(table)[:VISIBLE]]
    pages.curves(experiment, {metric: sum(points(connected, run, metric) for run in visible) for metric in METRICS})


@in_a_browser
def test_the_saved_view_has_the_trials_the_best_first(pages: Pages, experiment: str, runs: dict[str, Any]) -> None:
    trials = {name: run for name, run in runs.items() if name.startswith("trials/")}
    table = pages.leaderboard(experiment, len(trials))
    best = sorted(trials, key=lambda name: -trials[name].data.metrics[METRICS[0]])
    assert list(table) == best
    assert {"metrics.`val/mAP`", "tags.`state`", "tags.`search.train.optim.base_lr`"} <= table[best[0]].keys()
    assert {cells["tags.`state`"] for cells in table.values()} <= {"finished", "stopped"}


@in_a_browser
def test_the_page_of_the_sweep_has_the_leaderboard(
    pages: Pages, shown: Shown, experiment: str, runs: dict[str, Any]
) -> None:
    text = pages.overview(experiment, runs[shown[1]].info.run_id)
    assert text.startswith(f"{shown[1]}\nRuns")
    assert "0 (spec)\tfinished" in text
    assert shown[2] in text.partition("Registered models")[2]


@in_a_browser
def test_the_page_of_a_trial_has_its_curves(
    pages: Pages, experiment: str, runs: dict[str, Any], connected: Any
) -> None:
    run = runs["trials/0000"].info.run_id
    drawn = {metric: points(connected, run, metric) for metric in METRICS}
    assert min(drawn.values()) > 1
    text = pages.charts(experiment, run, drawn)
    assert all(f"trials/0000 ({metric})" in text for metric in METRICS)


@in_a_browser
def test_a_picture_among_the_artifacts_is_shown(
    pages: Pages, experiment: str, runs: dict[str, Any], connected: Any, tmp_path: Path
) -> None:
    name, path = PICTURE
    run = runs[name].info.run_id
    text, size = pages.artifact(experiment, run, path)
    assert name in text and path in text
    assert Image.open(connected.download_artifacts(run, path, str(tmp_path))).size == size


@in_a_browser
def test_the_model_has_a_version_that_is_champion(pages: Pages, shown: Shown, connected: Any) -> None:
    version = connected.get_model_version_by_alias(shown[2], "champion").version
    versions = pages.model(shown[2])
    assert f"Version {version}" in versions
    assert "@ champion" in versions
    text = pages.version(shown[2], version)
    assert f"winner of the sweep {shown[1]}" in text
    assert "test/mAP" in text


def points(connected: Any, run: str, metric: str) -> int:
    return len(connected.get_metric_history(run, metric))
