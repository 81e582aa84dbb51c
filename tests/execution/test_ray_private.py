"""Stopped runs of several workers free their resources; run as a script, this file is that sweep or another job."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reid_tune.config.experiment import Experiment, unflatten
from reid_tune.demo import draw_demo_data
from reid_tune.execution.cluster.session import ray_session
from reid_tune.execution.failures import Failure
from reid_tune.execution.ray_private import loopback_only
from reid_tune.execution.run_source import Attempt, ResourceRequest
from reid_tune.search.asha import Asha

SPEC = {
    "model.backbone": "test_resnet",
    "model.input_height": 32,
    "model.input_width": 16,
    "dataset.validation": "none",
    "dataset.batch_size": 16,
    "train.num_epochs": 3,
}


@pytest.mark.integration
@pytest.mark.parametrize("count", [6, pytest.param(12, marks=pytest.mark.timeout(3600))])
def test_stopped_runs_of_two_workers_leave_no_placement_group_and_take_none_of_others(
    count: int, tmp_path: Path
) -> None:
    # In a separate process, as Ray reads its settings when it is imported.
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(count)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert output["epochs"] == [1] * count, "stopped at the rung"
    # Both are as the trainers' are: created by an actor that has died, in a job that runs.
    assert output["left"] == {"detached": "creator dead", "of another job": "creator dead"}


def test_a_loopback_cluster_leaves_the_next_one_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import ray_constants

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setenv("DASHBOARD_METRIC_PORT", "7")
    before = dict(os.environ)
    with pytest.raises(KeyboardInterrupt), loopback_only():
        assert not ray_constants.ENABLE_RAY_CLUSTER and os.environ["DASHBOARD_METRIC_PORT"] == "-1"
        raise KeyboardInterrupt
    assert ray_constants.ENABLE_RAY_CLUSTER and dict(os.environ) == before


class Losers:
    """A source of runs of which each is worse than all before, so that ASHA stops them at its first rung."""

    def __init__(self, experiment: Experiment, folder: Path, count: int) -> None:
        self.experiment = experiment
        self.folder = folder
        self.count = count
        self.asha = Asha((1,), 3)
        self.asha.should_continue("run", 1, 0.0)
        self.epochs: dict[str, int] = {}
        self.ended: set[str] = set()
        self.again: list[str] = []

    def next_attempt(self) -> Attempt | None:
        if not self.again and len(self.epochs) == self.count:
            return None
        run = self.again.pop() if self.again else f"trials/{len(self.epochs):04d}"
        self.epochs[run] = 0
        return Attempt(run, self.experiment, self.folder / run / "attempt-1", None, ResourceRequest(cpus=2, workers=2))

    def is_done(self) -> bool:
        return len(self.ended) == self.count

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        self.epochs[run] = metrics["epoch"]
        if not self.asha.should_continue("run", metrics["epoch"], -1.0 - len(self.ended)):
            self.ended.add(run)
        return self.is_running(run)

    def report_started(self, run: str) -> None: ...

    def report_lost(self, run: str, failure: Failure) -> None:
        # Ray loses a trainer now and then, and a sweep starts its run again.
        assert failure.kind == "lost_worker", failure
        self.again.append(run)

    def poll(self) -> None:
        pass

    def is_running(self, run: str) -> bool:
        return run not in self.ended


def sweep(folder: Path, count: int) -> None:
    """Stop runs next to placement groups of others, and print the groups that are left."""
    draw_demo_data(folder / "data", identities=16, images=6)
    train = {"dataset.train_dataset_dir": str(folder / "data" / "bounding_box_train")}
    source = Losers(Experiment.model_validate(unflatten(SPEC | train)), folder, count)
    with ray_session():
        import ray

        from reid_tune.execution.tune_runner import run_all

        orphan("detached", lifetime="detached")
        with other_job(ray.get_runtime_context().gcs_address):
            run_all(source, lambda: max(1, int(ray.cluster_resources()["CPU"]) // 2), 2, folder / "ray", 600)
            print(json.dumps({"epochs": list(source.epochs.values()), "left": groups()}))


@contextmanager
def other_job(address: str) -> Iterator[None]:
    """A second job of the same cluster with a separate group."""
    command = [sys.executable, __file__, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"
        yield
        process.stdin.close()


def other(address: str) -> None:
    """The other job, until its input ends."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="error")
    orphan("of another job", lifetime=None)
    print("ready", flush=True)
    sys.stdin.read()


def orphan(name: str, lifetime: str | None) -> None:
    """A placement group that outlives the actor by which it was created."""
    import ray
    from ray.util.placement_group import placement_group

    @ray.remote(num_cpus=0)
    class Creator:
        def create(self) -> bool:
            return bool(placement_group([{"memory": 1}], name=name, lifetime=lifetime).wait(60))

    creator = Creator.remote()
    assert ray.get(creator.create.remote())
    ray.kill(creator)


def groups() -> dict[str, str]:
    """The cluster's placement groups by name."""
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    table = state._connect_and_get_accessor().get_placement_group_table()
    every = [PlacementGroupTableData.FromString(raw) for raw in table]
    return {
        group.name: "creator dead" if group.creator_actor_dead else "creator alive"
        for group in every
        if group.state != group.REMOVED
    }


if __name__ == "__main__":
    if len(sys.argv) == 2:
        other(sys.argv[1])
    else:
        sweep(Path(sys.argv[1]), int(sys.argv[2]))
