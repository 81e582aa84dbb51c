"""What a user sees of a finished sweep in MLflow's pages."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reid_tune.tracking.store import client

from .pages import CHROMIUM, Pages, chromium
from .servers import mlflow_server

pytestmark = [pytest.mark.integration, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")]

METRICS = ("val/mAP", "val/mINP", "val/Rank-1")
VISIBLE = 10  # runs that MLflow draws where nobody has chosen
SHOWN = ("val/mAP", "train.optim.name", "train.optim.base_lr", "state")
HIDDEN = ("Dataset", "Source", "Models")
PICTURE = ("refit/winner", "test/winner-cmc.png")

Shown = tuple[str, str, str]  # address of a server, experiment, registered model


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A finished sweep in a store of its own, behind a server."""
    store = os.environ.get("REID_TUNE_PAGES_STORE")
    if not store:
        pytest.skip("REID_TUNE_PAGES_STORE names no store of a finished sweep")
    with mlflow_server(tmp_path_factory.mktemp("server"), backend=store) as server:
        connection = client(server.uri)
        experiment = next(found.name for found in connection.search_experiments() if found.name != "Default")
        yield server.uri, experiment, connection.search_registered_models()[0].name


@pytest.fixture
def pages(shown: Shown, tmp_path: Path) -> Iterator[Pages]:
    with chromium(shown[0], Path(os.environ.get("REID_TUNE_PICTURES", tmp_path))) as found:
        yield found


@pytest.fixture
def store(shown: Shown) -> Any:
    return client(shown[0])


@pytest.fixture
def experiment(shown: Shown, store: Any) -> str:
    return store.get_experiment_by_name(shown[1]).experiment_id


@pytest.fixture
def runs(experiment: str, store: Any) -> dict[str, Any]:
    return {run.info.run_name: run for run in store.search_runs([experiment])}


def test_the_table_has_all_runs_of_the_sweep_and_charts_compare_them(
    pages: Pages, shown: Shown, experiment: str, runs: dict[str, Any], store: Any
) -> None:
    table = pages.runs(experiment, shown[1], SHOWN, HIDDEN)
    assert table.keys() == runs.keys()
    assert {shown[1], "trials/0000", "confirm/0000-1", "refit/winner"} <= table.keys()
    for name, run in runs.items():
        cell = table[name][f"metrics.`{METRICS[0]}`"]
        assert (None if cell == "-" else float(cell)) == run.data.metrics.get(METRICS[0])
    visible = [runs[name].info.run_id for name in list(table)[:VISIBLE]]
    pages.curves(experiment, {metric: sum(points(store, run, metric) for run in visible) for metric in METRICS})


def test_the_page_of_the_sweep_has_the_leaderboard(
    pages: Pages, shown: Shown, experiment: str, runs: dict[str, Any]
) -> None:
    text = pages.overview(experiment, runs[shown[1]].info.run_id)
    assert text.startswith(f"{shown[1]}\nRuns")
    assert "0 (spec)\tfinished" in text
    assert shown[2] in text.partition("Registered models")[2]


def test_the_page_of_a_trial_has_its_curves(pages: Pages, experiment: str, runs: dict[str, Any], store: Any) -> None:
    run = runs["trials/0000"].info.run_id
    drawn = {metric: points(store, run, metric) for metric in METRICS}
    assert min(drawn.values()) > 1
    text = pages.charts(experiment, run, drawn)
    assert all(f"trials/0000 ({metric})" in text for metric in METRICS)


def test_a_picture_among_the_artifacts_is_shown(
    pages: Pages, experiment: str, runs: dict[str, Any], store: Any, tmp_path: Path
) -> None:
    name, path = PICTURE
    run = runs[name].info.run_id
    text, size = pages.artifact(experiment, run, path)
    assert name in text and path in text
    assert Image.open(store.download_artifacts(run, path, str(tmp_path))).size == size


def test_the_model_has_a_version_that_is_champion(pages: Pages, shown: Shown, store: Any) -> None:
    version = store.get_model_version_by_alias(shown[2], "champion").version
    versions = pages.model(shown[2])
    assert f"Version {version}" in versions
    assert "@ champion" in versions
    text = pages.version(shown[2], version)
    assert f"Winner of the sweep {shown[1]}" in text
    assert "test/mAP" in text


def points(store: Any, run: str, metric: str) -> int:
    return len(store.get_metric_history(run, metric))
