"""How many runs a cluster has room for."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reid_tune.errors import InputError
from reid_tune.execution.ray_private import read_autoscaling_config
from reid_tune.search_space.schema import Resources

__all__ = ["Placement", "compute_placement"]

_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # of `ray up`, on the head

Amounts = Mapping[str, float]


@dataclass(frozen=True)
class Placement:
    """What one worker gets, and how many runs fit at once; fewer than one GPU is a share of one."""

    cpus: int
    gpus: float
    max_concurrent: int
    custom: tuple[tuple[str, float], ...] = ()


def compute_placement(resources: Resources, workers: int) -> Placement:
    """What each worker of a run gets on the cluster as it is, or as its autoscaler can make it.

    The workers of a run may lie on several nodes; a worker lies on one. Where an autoscaler can add nodes, one run more
    than fits is begun: Ray then sees what it is to make room for.

    Raises:
        InputError: not one run fits, now or ever.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    more = _to_come()
    wanted = resources.gpus_per_worker
    have = any(node.get("GPU") and node.get("CPU") for node in [*nodes, *more])
    gpus = (1 if have else 0) if wanted == "auto" else wanted
    each = {"CPU": resources.cpus_per_worker, "GPU": gpus, **dict(resources.custom_resources)}
    fits = _slots(nodes, each) // workers
    most = max(fits, _slots(more, each) // workers)
    if most < 1:
        raise InputError(_too_much(resources, workers, each, [*nodes, *more]))
    room = fits + (most > fits)
    return Placement(
        resources.cpus_per_worker, gpus, min(room, resources.max_concurrent or room), resources.custom_resources
    )


def _to_come() -> list[Amounts]:
    """The nodes of the cluster at its largest, beside its head; none where this machine knows of no autoscaler."""
    config = _autoscaling()
    types = config.get("available_node_types", {})
    most = {name: kind.get("max_workers", config.get("max_workers", 0)) for name, kind in types.items()}
    most.pop(config.get("head_node_type"), None)
    return [types[name].get("resources", {}) for name, count in most.items() for _ in range(count)]


def _autoscaling() -> dict[str, Any]:
    """The autoscaler's configuration, which Ray 2.60 does not tell: it lies on the head, or in Kubernetes."""
    if _BOOTSTRAP.expanduser().is_file():
        return dict(yaml.safe_load(_BOOTSTRAP.expanduser().read_text()))
    cluster, namespace = os.environ.get("RAY_CLUSTER_NAME"), os.environ.get("RAY_CLUSTER_NAMESPACE")
    if not cluster or not namespace:
        return {}
    try:
        return read_autoscaling_config(cluster, namespace)
    except Exception:  # Without the right to ask Kubernetes there is what there is.
        return {}


def _slots(nodes: Iterable[Amounts], each: Amounts) -> int:
    """How many workers the nodes hold."""
    return sum(min(_times(node.get(name, 0), amount) for name, amount in each.items() if amount) for node in nodes)


def _times(have: float, wanted: float) -> int:
    # A share of a GPU lies on one of them; 1 / 0.1 is 10 shares, though ten times 0.1 is not 1 for a computer.
    return int(have) * int(round(1 / wanted, 6)) if wanted < 1 else int(have // wanted)


def _too_much(resources: Resources, workers: int, each: Amounts, nodes: Iterable[Amounts]) -> str:
    have = [_words({name: node.get(name, 0) for name in each}) for node in nodes if any(map(node.get, each))]
    held = ", ".join(f"{have.count(text)} x {text}" if len(have) > 1 else text for text in dict.fromkeys(have))
    return (
        f"resources.cpus_per_worker = {resources.cpus_per_worker}, gpus_per_worker = {resources.gpus_per_worker}: "
        f"a run of {workers} worker(s) wants {_words(each)} for each of them, but the cluster has "
        f"{held or 'none of that'}: lower what resources asks for."
    )


def _words(amounts: Amounts) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in amounts.items())
