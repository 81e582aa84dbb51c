"""status.json: lines that a tool can read."""

import json
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.tasks.common.status_log import kpi, logged


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


def test_a_task_starts_reports_and_succeeds(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "evaluate"
    with logged(folder, "evaluate") as log:
        log.write("STARTED", "evaluate started")
        log.write("RUNNING", "scored", kpi=kpi({"mAP": 0.9412345, "Rank-1": 1 / 3, "queries": 7}))
    first, second, last = lines(folder)
    assert [line["status"] for line in (first, second, last)] == ["STARTED", "RUNNING", "SUCCESS"]
    assert second["kpi"] == {"cmc_rank_1": 1 / 3, "mAP": 0.9412345}, "numbers are numbers, and not rounded"
    assert isinstance(last["seconds"], float)
    assert all({"date", "time", "status", "verbosity", "message"} <= line.keys() for line in lines(folder))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("the file is bad."), "train failed: the file is bad."),
        (KeyboardInterrupt(), "train failed: stopped by the user"),
        (ValueError(), "train failed: ValueError"),
    ],
)
def test_a_task_that_fails_says_why(tmp_path: Path, error: BaseException, message: str) -> None:
    with pytest.raises(type(error)), logged(tmp_path, "train") as log:
        log.write("STARTED", "train started")
        raise error
    assert [(line["status"], line["verbosity"]) for line in lines(tmp_path)][-1] == ("FAILURE", "ERROR")
    assert lines(tmp_path)[-1]["message"] == message


def test_a_task_that_is_refused_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError), logged(tmp_path / "train", "train"):
        raise InputError("no such folder.")
    assert not (tmp_path / "train").exists()


def test_runs_are_appended(tmp_path: Path) -> None:
    for _ in range(2):
        with logged(tmp_path, "train") as log:
            log.write("STARTED", "train started")
    assert [line["status"] for line in lines(tmp_path)] == ["STARTED", "SUCCESS"] * 2


def test_kpis_have_the_references_names() -> None:
    metrics = {"loss": 2.0, "accuracy": 0.5, "mAP": 0.1, "mINP": 0.2, "Rank-1": 0.3, "Rank-5": 0.4, "Rank-10": 0.5}
    assert kpi(metrics | {"lr": 1.0, "images_per_second": 3.0}) == {
        "train_loss": 2.0,
        "train_acc": 0.5,
        "cmc_rank_1": 0.3,
        "cmc_rank_5": 0.4,
        "cmc_rank_10": 0.5,
        "mAP": 0.1,
        "mINP": 0.2,
    }
