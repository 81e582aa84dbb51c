"""The placement of runs on a cluster: what a worker gets, and how many runs fit at the same time."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reid_tune.errors import InputError
from reid_tune.execution.ray_private import read_autoscaling_config
from reid_tune.search_space.resources import Resources

__all__ = ["Placement", "compute_placement"]

_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # written by `ray up` on the head

Amounts = Mapping[str, float]


@dataclass(frozen=True)
class Placement:
    """The placement of runs.

    Attributes:
        cpus: CPUs of each worker.
        gpus: GPUs of each worker; below 1 the share of one GPU.
        max_concurrent: Number of runs at the same time.
        custom: Amounts of further resources of a node for each worker, by Ray's names.
    """

    cpus: int
    gpus: float
    max_concurrent: int
    custom: tuple[tuple[str, float], ...] = ()


def compute_placement(resources: Resources, workers: int) -> Placement:
    """Return the placement of runs on the cluster in its present state, or as its autoscaler can make it.

    The workers of a run may be on several nodes, a worker is on one. Where an autoscaler can add nodes, one run more
    than fits is started: its request makes Ray add a node.

    Args:
        resources: The section `resources` of the sweep.
        workers: Number of workers of each run.

    Raises:
        InputError: not a single run fits, now or when the autoscaler has added nodes.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes_at_most = _autoscaled_nodes()
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = int(any(node.get("GPU") and node.get("CPU") for node in [*nodes, *nodes_at_most]))
    per_worker = {"CPU": resources.cpus_per_worker, "GPU": gpus, **dict(resources.custom_resources)}
    fitting = _count_workers(nodes, per_worker) // workers
    fitting_at_most = max(fitting, _count_workers(nodes_at_most, per_worker) // workers)
    if fitting_at_most < 1:
        raise InputError(_describe_shortage(resources, workers, per_worker, [*nodes, *nodes_at_most]))
    runs = fitting + (fitting_at_most > fitting)
    max_concurrent = min(runs, resources.max_concurrent or runs)
    return Placement(resources.cpus_per_worker, gpus, max_concurrent, resources.custom_resources)


def _autoscaled_nodes() -> list[Amounts]:
    """Resources of the nodes of the cluster at its largest, without the head; empty without a known autoscaler."""
    config = _autoscaling_config()
    types = config.get("available_node_types", {})
    counts = {name: node_type.get("max_workers", config.get("max_workers", 0)) for name, node_type in types.items()}
    counts.pop(config.get("head_node_type"), None)
    return [types[name].get("resources", {}) for name, count in counts.items() for _ in range(count)]


def _autoscaling_config() -> dict[str, Any]:
    """The autoscaler's configuration, from a file on the head or from Kubernetes; empty where there is none."""
    if _BOOTSTRAP.expanduser().is_file():
        return dict(yaml.safe_load(_BOOTSTRAP.expanduser().read_text()))
    cluster, namespace = os.environ.get("RAY_CLUSTER_NAME"), os.environ.get("RAY_CLUSTER_NAMESPACE")
    if not cluster or not namespace:
        return {}
    try:
        return read_autoscaling_config(cluster, namespace)
    except Exception:  # Without the right to ask Kubernetes, only the present nodes count.
        return {}


def _count_workers(nodes: Iterable[Amounts], per_worker: Amounts) -> int:
    """Return the number of workers that fit on the nodes."""
    return sum(
        min(_count_fitting(node.get(name, 0), amount) for name, amount in per_worker.items() if amount)
        for node in nodes
    )


def _count_fitting(available: float, amount: float) -> int:
    # A share of a GPU is on one GPU. 1 / 0.1 is 10 shares, though ten times 0.1 is not 1 in floating point.
    return int(available) * int(round(1 / amount, 6)) if amount < 1 else int(available // amount)


def _describe_shortage(resources: Resources, workers: int, per_worker: Amounts, nodes: Iterable[Amounts]) -> str:
    texts = [
        _format_amounts({name: node.get(name, 0) for name in per_worker})
        for node in nodes
        if any(map(node.get, per_worker))
    ]
    available = ", ".join(f"{texts.count(text)} x {text}" if len(texts) > 1 else text for text in dict.fromkeys(texts))
    return (
        f"resources.cpus_per_worker = {resources.cpus_per_worker}, gpus_per_worker = {resources.gpus_per_worker}: "
        f"a run of {workers} worker(s) needs {_format_amounts(per_worker)} for each worker, but the cluster has "
        f"{available or 'none of these'}: lower the values in resources."
    )


def _format_amounts(amounts: Amounts) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in amounts.items())
