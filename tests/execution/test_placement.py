"""How many runs fit on nodes that are described here, where there are none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from reid_tune.errors import InputError
from reid_tune.execution import placement
from reid_tune.execution.placement import compute_placement
from reid_tune.search_space.resources import Resources

Node = dict[str, float]
Cluster = Callable[..., None]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    """Nodes that are alive, and those that an autoscaler may add, by their resources."""

    def be(alive: list[Node], group: Node | None = None, most: int = 0) -> None:
        nodes = [{"Alive": True, "Resources": each} for each in alive]
        monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 99, "GPU": 99}}])
        types = {"head": {"resources": {"CPU": 64}}, "gpu": {"resources": group, "max_workers": most}}
        config = {"available_node_types": types, "head_node_type": "head", "max_workers": 9} if group else {}
        (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("HOME", str(tmp_path))

    return be


def resources(**values: Any) -> Resources:
    return Resources.model_validate(values)


def test_a_worker_lies_on_one_node_and_a_run_on_several(cluster: Cluster) -> None:
    cluster([{"CPU": 3}, {"CPU": 3}])
    assert compute_placement(resources(cpus_per_worker=2), 1).max_concurrent == 2, (
        "6 CPUs, but none of a third worker's two on one node"
    )
    assert compute_placement(resources(cpus_per_worker=2), 2).max_concurrent == 1
    assert compute_placement(resources(cpus_per_worker=1), 2).max_concurrent == 3
    assert compute_placement(resources(cpus_per_worker=1, max_concurrent=2), 2).max_concurrent == 2


def test_shares_of_a_gpu_lie_on_one_gpu(cluster: Cluster) -> None:
    cluster([{"CPU": 32, "GPU": 2}, {"CPU": 32}])
    tenth = compute_placement(resources(gpus_per_worker=0.1), 1)
    assert (tenth.gpus, tenth.max_concurrent) == (0.1, 20)
    assert compute_placement(resources(gpus_per_worker=0.4), 1).max_concurrent == 4
    assert compute_placement(resources(), 1).gpus == 1, "auto takes a GPU where there is one"
    assert compute_placement(resources(gpus_per_worker=0), 1).max_concurrent == 64


def test_kinds_of_gpus_and_what_nodes_were_started_with_are_waited_for(cluster: Cluster) -> None:
    fast = {"CPU": 8, "GPU": 4, "accelerator_type:H100": 1, "fast_disk": 2}
    cluster([{"CPU": 8, "GPU": 4, "accelerator_type:T4": 1}, fast])
    assert compute_placement(resources(), 1).max_concurrent == 8
    h100 = resources(accelerator_type="H100", custom={"fast_disk": 1})
    assert compute_placement(h100, 1) == placement.Placement(
        1, 1, 2, (("accelerator_type:H100", 0.001), ("fast_disk", 1))
    )


def test_an_autoscaler_sees_one_run_more_than_fits(cluster: Cluster) -> None:
    cluster([{"CPU": 0}], {"CPU": 4, "GPU": 1}, most=8)
    assert compute_placement(resources(), 1).max_concurrent == 1, "from zero"
    cluster([{"CPU": 0}, {"CPU": 4, "GPU": 1}], {"CPU": 4, "GPU": 1}, most=8)
    assert compute_placement(resources(), 1).max_concurrent == 2
    cluster([{"CPU": 4, "GPU": 1}] * 8, {"CPU": 4, "GPU": 1}, most=8)
    assert compute_placement(resources(), 1).max_concurrent == 8, "no more nodes can come"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cpus_per_worker": 5}, "needs 5 CPU and 0 GPU for each worker, but the cluster has 2 x 4 CPU and 0 GPU"),
        ({"gpus_per_worker": 1}, "gpus_per_worker = 1.*needs 1 CPU and 1 GPU"),
        ({"custom": {"tape": 1}}, "1 CPU and 0 GPU and 1 tape.*2 x 4 CPU and 0 GPU and 0 tape"),
    ],
)
def test_what_no_node_offers_is_refused(cluster: Cluster, values: dict[str, Any], message: str) -> None:
    cluster([{"CPU": 4}, {"CPU": 4}])
    with pytest.raises(InputError, match=message):
        compute_placement(resources(**values), 1)


def test_more_workers_than_the_cluster_holds_are_refused(cluster: Cluster) -> None:
    cluster([{"CPU": 4}, {"CPU": 4}])
    with pytest.raises(InputError, match="a run of 9 worker"):
        compute_placement(resources(), 9)
