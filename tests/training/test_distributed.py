"""1, 2 and 4 workers with the same global batch have the same losses and gradients."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.losses.metric_losses import batch_hard_triplet, euclidean_distances
from reid_tune.training.distributed import broadcast_object, gather_rows, rank, world_size

from ..helpers import training_worker as worker

Results = dict[tuple[int, int], dict[str, Any]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Results:
    """Results of each worker of each world size, by (world, rank)."""
    folder = tmp_path_factory.mktemp("workers")
    script = Path(worker.__file__)
    done = subprocess.run([sys.executable, script, folder, data / "train"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pairs = [(world, number) for world in worker.WORLDS for number in range(world)]
    return {(world, number): torch.load(folder / f"{world}-{number}.pt") for world, number in pairs}


@pytest.mark.integration
@pytest.mark.parametrize("name", worker.STEPS)
@pytest.mark.parametrize("world", [2, 4])
def test_loss_gradients_and_update_do_not_depend_on_the_workers(results: Results, world: int, name: str) -> None:
    alone = results[1, 0]["steps"][name.removesuffix(" in chunks")]
    assert float(alone["parts"]["loss"]) > 0.1
    assert max(gradient.abs().max() for gradient in alone["gradients"].values()) > 1e-2
    for number in range(world):
        step = results[world, number]["steps"][name]
        assert step["parts"].keys() == alone["parts"].keys()
        assert step["gradients"].keys() == alone["gradients"].keys()
        for part in ("parts", "gradients", "state"):
            for key, expected in alone[part].items():
                torch.testing.assert_close(step[part][key], expected, atol=1e-5, rtol=1e-5, msg=f"{part} {key}")


@pytest.mark.integration
@pytest.mark.parametrize("world", [2, 4])
def test_the_batch_tells_global_from_local_mining(results: Results, world: int) -> None:
    features, (_, labels) = results[1, 0]["steps"]["triplet"]["features"], worker.batch()
    same = labels[:, None] == labels[None, :]
    hardest = euclidean_distances(features).masked_fill(same, torch.inf).argmin(1)
    share = len(labels) // world
    assert (hardest // share != torch.arange(len(labels)) // share).all()
    whole = float(batch_hard_triplet(euclidean_distances(features), labels, 0.3))
    parts = [
        batch_hard_triplet(euclidean_distances(f), y, 0.3)
        for f, y in zip(features.split(share), labels.split(share), strict=True)
    ]
    assert abs(whole - float(torch.stack(parts).mean())) > 1e-2
    measured = float(results[world, 0]["steps"]["triplet"]["parts"]["loss/triplet"])
    assert measured == pytest.approx(whole, abs=1e-5)


@pytest.mark.integration
def test_two_workers_train_as_one_run(results: Results) -> None:
    first, second = (results[2, number]["run"] for number in (0, 1))
    assert first["files"] == ["model_epoch_000.pth", "reid_model_latest.pth"]
    assert second["files"] == [], "only the first worker writes"
    for name in ("loss", "mAP", "val_loss"):
        assert first["history"][0][name] == second["history"][0][name]


@pytest.mark.integration
def test_a_batch_that_cannot_be_divided_is_refused(results: Results) -> None:
    for number in range(4):
        assert results[4, number]["indivisible"] == (
            "dataset.batch_size = 18 cannot be divided among 4 workers: the next size that can, with "
            "dataset.num_instances = 3, is 24."
        )


@pytest.mark.parametrize("world", [2, 4])
def test_a_batch_need_not_be_whole_identities_for_each_worker(world: int) -> None:
    """The shares of the step `batch of 12` are not whole identities, unlike those of the others."""
    _, labels = worker.batch(worker.STEPS["batch of 12"][1])
    assert len(labels) == 12 and len(labels) % world == 0 and len(labels) % (world * worker.INSTANCES)


@pytest.mark.integration
def test_broadcast_gives_the_first_workers_value(results: Results) -> None:
    assert {entry["broadcast"] for entry in results.values()} == {"from 0"}


@pytest.mark.integration
@pytest.mark.parametrize("world", [2, 4])
def test_all_workers_have_the_values_of_all_workers_whatever_their_lengths(world: int, results: Results) -> None:
    for number in range(world):
        gathered = results[world, number]["gathered"]
        assert [(entry["scores"][0], entry["text"]) for entry in gathered] == [
            (sender / 3, "\u00e9" * sender) for sender in range(world)
        ]
        assert all(math.isnan(entry["scores"][1]) for entry in gathered)


def test_one_process_needs_no_group() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    assert (world_size(), rank(), broadcast_object("mine")) == (1, 0, "mine")
    assert gather_rows(rows) is rows
