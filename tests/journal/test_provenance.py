import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.data.fingerprint import fingerprint
from reid_tune.demo import draw_demo_data
from reid_tune.errors import InputError
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.provenance import (
    RUN_RECORD,
    WorkerResources,
    _commit,
    collect_environment,
    make_run_record,
    worker_resources_of,
    write_run_record,
)

from ..helpers.finished_sweep import simulate


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provenance") / "data"
    draw_demo_data(folder, identities=4, images=3)
    return folder


def experiment(data: Path, **more: object) -> Experiment:
    folder = str(data / "bounding_box_train")
    return with_parameters(Experiment(), {"dataset.train_dataset_dir": folder, **more}, "")


def test_the_environment_says_what_a_run_depends_on(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    found = collect_environment(experiment(data, **{"model.pretrained_model_path": str(weights)}))
    assert found["packages"]["torch"] == torch.__version__.split("+")[0] or found["packages"]["torch"]
    assert found["packages"]["python"] == ".".join(map(str, sys.version_info[:3])) and found["packages"]["ray"]
    assert found["data"]["fingerprint"] == fingerprint(data / "bounding_box_train")
    assert found["weights"] == {"file": str(weights), "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert found["machine"]["cpu"] and found["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert collect_environment(experiment(data))["weights"] is None
    with pytest.raises(InputError, match="gone.pth"):
        collect_environment(experiment(data, **{"model.pretrained_model_path": "gone.pth"}))


def test_mlflow_is_not_imported_for_its_version() -> None:
    code = "import sys, reid_tune.journal.provenance as p; p._version('mlflow'); assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_commit_is_that_of_the_source_alone(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        own = ("-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path))
        return subprocess.run(["git", *own, *words], check=True, capture_output=True, text=True).stdout.strip()

    source = tmp_path / "package"
    source.mkdir()
    (source / "__init__.py").write_text("")
    assert _commit(source) == (None, None)
    git("init")
    assert _commit(source) == (None, None), "an installed package inside somebody's repository"
    git("add", ".")
    git("commit", "-m", "one")
    (tmp_path / "results").write_text("beside the source")
    assert _commit(source) == (git("rev-parse", "HEAD"), False)
    (source / "new.py").write_text("")
    assert _commit(source) == (git("rev-parse", "HEAD"), True)


def test_a_record_is_written_without_the_key(data: Path, tmp_path: Path) -> None:
    secret = experiment(data, encryption_key="hush", **{"train.seed": 7, "dataset.validation": "holdout"})
    held = WorkerResources(workers=2, cpus=3, gpus=0.0)
    write_run_record(tmp_path / "trials" / "0007", make_run_record(secret, {"commit": None}, held))
    text = (tmp_path / "trials" / "0007" / "run.json").read_text()
    found = json.loads(text)
    assert "hush" not in text and "encryption_key" not in found["spec"]
    assert found["seed"] == 7 and found["split"] == {"validation": "holdout", "seed": 0, "fraction": 0.2}
    assert found["spec"]["train.optim.base_lr"] == secret.train.optim.base_lr
    assert found["held"] == {"workers": 2, "cpus": 3, "gpus": 0.0, "hidden": False}


@pytest.mark.usefixtures("no_fsync")
def test_what_a_run_held_is_in_its_record_else_in_the_plan(tmp_path: Path) -> None:
    sweep = simulate(tmp_path, trials=2)
    state, _ = read_sweep(sweep.folder)
    trial = state.trials[1]
    state.header.sweep["resources"] |= {"cpus_per_worker": 4, "workers": 3}
    (sweep.folder / trial.name / RUN_RECORD).unlink()
    assert worker_resources_of(state, trial, sweep.folder) == WorkerResources(3, 4, 0, True)
    state.stages["preflight"]["gpus_per_run"] = 6
    assert worker_resources_of(state, trial, sweep.folder) == WorkerResources(3, 4, 2, False)
    write_run_record(sweep.folder / trial.name, make_run_record(sweep.experiment, {}, WorkerResources(1, 2, 0.5)))
    assert worker_resources_of(state, trial, sweep.folder) == WorkerResources(1, 2, 0.5)
