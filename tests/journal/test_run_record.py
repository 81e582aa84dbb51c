import json
from pathlib import Path

import pytest

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.run_record import RUN_RECORD, RunRecord, WorkerResources, worker_resources_of

from ..helpers.finished_sweep import simulate


def test_a_record_is_written_without_the_key(tmp_path: Path) -> None:
    values = {"encryption_key": "hush", "train.seed": 7, "dataset.validation": "holdout"}
    experiment = with_parameters(Experiment(), values, "")
    resources = WorkerResources(workers=2, cpus=3, gpus=0.0)
    RunRecord.of(experiment, {"commit": None}, resources).write(tmp_path / "trials" / "0007")
    text = (tmp_path / "trials" / "0007" / "run.json").read_text()
    record = json.loads(text)
    assert "hush" not in text and "encryption_key" not in record["spec"]
    assert record["seed"] == 7 and record["split"] == {"validation": "holdout", "seed": 0, "fraction": 0.2}
    assert record["spec"]["train.optim.base_lr"] == experiment.train.optim.base_lr
    assert record["resources"] == {"workers": 2, "cpus": 3, "gpus": 0.0, "gpus_hidden": False}


@pytest.mark.usefixtures("no_fsync")
def test_the_resources_of_a_run_are_in_its_record_or_else_in_the_plan(tmp_path: Path) -> None:
    sweep = simulate(tmp_path, trials=2)
    state, _ = read_sweep(sweep.folder)
    trial = state.trials[1]
    state.header.sweep["resources"] |= {"cpus_per_worker": 4, "workers": 3}
    (sweep.folder / trial.name / RUN_RECORD).unlink()
    assert worker_resources_of(state, trial, sweep.folder) == WorkerResources(3, 4, 0, True)
    state.stages["preflight"]["gpus_per_run"] = 6
    assert worker_resources_of(state, trial, sweep.folder) == WorkerResources(3, 4, 2, False)
    RunRecord.of(sweep.experiment, {}, WorkerResources(1, 2, 0.5)).write(sweep.folder / trial.name)
    assert worker_resources_of(state, trial, sweep.folder) == WorkerResources(1, 2, 0.5)
