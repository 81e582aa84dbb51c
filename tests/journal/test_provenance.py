import hashlib
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
from reid_tune.journal.provenance import _commit, collect_environment


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
    environment = collect_environment(experiment(data, **{"model.pretrained_model_path": str(weights)}))
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or environment["packages"]["torch"]
    assert (
        environment["packages"]["python"] == ".".join(map(str, sys.version_info[:3])) and environment["packages"]["ray"]
    )
    assert environment["data"]["fingerprint"] == fingerprint(data / "bounding_box_train")
    assert environment["weights"] == {"file": str(weights), "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert environment["machine"]["cpu"] and environment["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert collect_environment(experiment(data))["weights"] is None
    with pytest.raises(InputError, match="gone.pth"):
        collect_environment(experiment(data, **{"model.pretrained_model_path": "gone.pth"}))


def test_mlflow_is_not_imported_for_its_version() -> None:
    code = "import sys, reid_tune.journal.provenance as p; p._version('mlflow'); assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_commit_is_that_of_the_source_alone(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        options = ("-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path))
        return subprocess.run(["git", *options, *words], check=True, capture_output=True, text=True).stdout.strip()

    source = tmp_path / "package"
    source.mkdir()
    (source / "__init__.py").write_text("")
    assert _commit(source) == (None, None)
    git("init")
    assert _commit(source) == (None, None), "an installed package inside somebody's repository"
    git("add", ".")
    git("commit", "-m", "one")
    (tmp_path / "results").write_text("next to the source")
    assert _commit(source) == (git("rev-parse", "HEAD"), False)
    (source / "new.py").write_text("")
    assert _commit(source) == (git("rev-parse", "HEAD"), True)
