"""Embedding with several processes: the same numbers as with one, and no process remains."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, save_checkpoint
from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment
from reid_tune.errors import InputError, RunFailedError
from reid_tune.modeling.network import build_seeded_network
from reid_tune.tasks.common.open_model import ModelFile
from reid_tune.training.embedding_pool import open_embedding_pool

CPU = torch.device("cpu")


def make_spec() -> Experiment:
    tree = {"model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 24}}
    return build_experiment(tree, {"dataset.val_batch_size": 3}, "test")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[ModelFile]:
    """Files of two networks."""
    experiment, folder = make_spec(), tmp_path_factory.mktemp("models")
    spec = experiment.model_dump(mode="json", exclude={"encryption_key"})
    for seed in (0, 1):
        weights = build_seeded_network(experiment.model, 2, seed).state_dict()
        save_checkpoint(folder / f"{seed}.pth", Checkpoint(spec, 1, [1, 2], [], weights, {}))
    return [ModelFile(folder / f"{seed}.pth", experiment) for seed in (0, 1)]


@pytest.fixture(scope="module")
def two() -> Iterator[object]:
    with open_embedding_pool([CPU, CPU]) as load:
        yield load


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 16, 3), dtype=np.uint8)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_two_workers_give_what_one_does_in_order(two, models: list[ModelFile], count: int) -> None:
    images = crops(count)
    embeddings = []
    for model in models:
        with open_embedding_pool([CPU]) as load:
            one = load(model)
        shared = two(model)
        assert (shared.image_spec, shared.dimension) == (one.image_spec, one.dimension) and one.dimension == 24
        expected = one.embed(images)
        np.testing.assert_allclose(shared.embed(images), expected, atol=1e-5 * np.abs(expected).max())
        embeddings.append(expected)
    assert not np.allclose(embeddings[0], embeddings[1])


def test_the_open_model_is_not_opened_again(two, models: list[ModelFile], tmp_path: Path) -> None:
    copy = ModelFile(tmp_path / "copy.pth", models[0].experiment)
    copy.path.write_bytes(models[0].path.read_bytes())
    first = two(copy)
    copy.path.unlink()
    assert two(ModelFile(copy.path, make_spec())) is first
    two(models[1])
    with pytest.raises(InputError, match="there is no checkpoint"):
        two(copy)


@pytest.mark.integration
def test_what_a_model_raises_comes_back_and_ends_the_workers(models: list[ModelFile], tmp_path: Path) -> None:
    before = len(children())
    with open_embedding_pool([CPU, CPU]) as load:
        assert len(children()) == before + 2
        with pytest.raises(InputError, match="there is no checkpoint .*gone.pth"):
            load(ModelFile(tmp_path / "gone.pth", make_spec()))
        assert len(children()) == before


@pytest.mark.integration
def test_a_worker_that_dies_is_named_and_none_is_left(models: list[ModelFile]) -> None:
    before = {process.pid for process in children()}
    with (
        pytest.raises(RunFailedError, match=r"worker [12] of 2 died \(status -9\)"),
        open_embedding_pool([CPU, CPU]) as load,
    ):
        embedder = load(models[0])
        next(process for process in children() if process.pid not in before).kill()
        embedder.embed(crops(20))
    assert {process.pid for process in children()} == before


SCRIPT = """
import os, signal, sys
from pathlib import Path
import psutil, torch
print("a line of the script", flush=True)
from reid_tune.config.load import build_experiment
from reid_tune.tasks.common.open_model import ModelFile
from reid_tune.training.embedding_pool import open_embedding_pool

experiment = build_experiment({}, %r, "test")
with open_embedding_pool([torch.device("cpu")] * 2) as load:
    load(ModelFile(Path(%r), experiment))
    print(*(child.pid for child in psutil.Process().children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.integration
def test_workers_do_not_run_the_script_again_and_end_with_it(models: list[ModelFile], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    overrides = {
        "model.backbone": "test_resnet",
        "model.input_height": 32,
        "model.input_width": 16,
        "model.feat_dim": 24,
    }
    script.write_text(SCRIPT % (overrides, str(models[0].path)))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    # The workers inherit stdout: the end of the file says that all of them are gone, too.
    first, second = parent.stdout.read().splitlines()
    assert first == "a line of the script" and parent.wait() == -9
    workers = [int(pid) for pid in second.split()]
    assert len(workers) == 2
    gone = [process for process in map(find, workers) if process is not None]
    assert psutil.wait_procs(gone, timeout=60)[1] == []


def find(pid: int) -> psutil.Process | None:
    return psutil.Process(pid) if psutil.pid_exists(pid) else None
