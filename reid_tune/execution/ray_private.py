"""Every private interface of Ray that is used, so that a new version of Ray is checked in one place.

`tests/test_private_apis.py` names the one that has moved. Imports nothing heavy: processes that only supervise a run
import this module too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from reid_tune.environment import is_secret_name, temporary_variables

__all__ = [
    "CLUSTER_QUERY",
    "hide_messages",
    "job_client",
    "keep_secrets_out_of_trials",
    "local_cluster_options",
    "loopback_only",
    "prefer_node",
    "read_autoscaling_config",
    "remove_orphaned_groups",
    "request_stop",
    "torch_config_with_hook",
    "trainer_without_group_cleaner",
]

# A program that prints, as JSON, the address and versions of a cluster: {"address": null} where none answers,
# {"refused": true} where the cluster refuses the token. Arguments: an address, and the seconds after which it ends.
CLUSTER_QUERY = """
import json, signal, sys
from ray._common.usage.usage_lib import get_cluster_metadata
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
signal.alarm(int(sys.argv[2]))
try:
    address = canonicalize_bootstrap_address(sys.argv[1])
    metadata = get_cluster_metadata(GcsClient(address=address)) if address else {}
    answer = {"address": address, "ray": metadata.get("ray_version"), "python": metadata.get("python_version")}
except AuthenticationError:
    answer = {"refused": True}
except ConnectionError:
    answer = {"address": None}
print(json.dumps(answer))
"""


# Read by the processes of Ray. Without the first, which is meant for other systems, they bind to all addresses.
_LOOPBACK_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Pages with metrics, which ask for no token. The last two have no switch, and -1 is not a port.
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}


def local_cluster_options(folder: str) -> dict[str, Any]:
    """Return the arguments of `ray.init` for a cluster on this machine, see `loopback_only`.

    Args:
        folder: Folder for Ray's files.
    """
    return {"address": "local", "include_dashboard": False, "_temp_dir": folder, "_node_ip_address": "127.0.0.1"}


@contextmanager
def loopback_only() -> Iterator[None]:
    """Make a cluster that is started within the block listen on the loopback only, without pages of metrics."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # It was read from the environment when Ray was imported.
    try:
        with temporary_variables(_LOOPBACK_SETTINGS):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def job_client(address: str, timeout: float) -> Any:
    """Return a client of a dashboard that submits jobs; Ray's own waits for answers without an end.

    Args:
        address: Address of the dashboard, `http://HOST:8265`.
        timeout: Seconds in which the dashboard must answer each request.
    """
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        def _do_request(self, *arguments: Any, **options: Any) -> Any:
            return super()._do_request(*arguments, **{"timeout": timeout, **options})

    return Client(address)


def hide_messages() -> None:
    """Keep Ray from printing errors of its processes, with pages of their logs, to stdout."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None


def keep_secrets_out_of_trials() -> None:
    """Take secrets from the variables that Ray Tune copies into the runtime environments of trials.

    Ray writes runtime environments to its logs and shows them to all users of a cluster. A worker has the variables of
    the process that started Ray on its node.
    """
    from ray.tune.execution import class_cache

    names = class_cache.ENV_VARS_TO_PROPAGATE
    names.difference_update({name for name in names if is_secret_name(name)})


def read_autoscaling_config(cluster: str, namespace: str) -> dict[str, Any]:
    """Return the autoscaler's configuration from Kubernetes, which Ray 2.60 offers in no public way.

    Args:
        cluster: Name of the RayCluster resource.
        namespace: Its namespace in Kubernetes.
    """
    from ray.autoscaler._private.kuberay.autoscaling_config import AutoscalingConfigProducer

    return dict(AutoscalingConfigProducer(cluster, namespace)())


def prefer_node(node_id: str) -> Any:
    """Return a scheduling strategy for a node that takes another one at once where the node has nothing free.

    The public form, without the last argument, waits for a busy GPU of the node while others are free.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=True, _spill_on_unavailable=True)


def request_stop(controller: Any, trial: Any) -> None:
    """Stop a trial of Tune between two of its reports.

    Args:
        controller: Tune's controller, as schedulers get it.
        trial: The trial, as callbacks get it.
    """
    controller.request_stop_trial(trial)


def trainer_without_group_cleaner() -> type:
    """Return Ray Train's TorchTrainer without its removal of placement groups.

    The removal is a process that needs the dashboard; `remove_orphaned_groups` replaces it.
    """
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]

    return Trainer


def torch_config_with_hook(backend: str, timeout_s: int, hook: Callable[[], None], rendezvous: str | None) -> Any:
    """Return Ray Train's configuration of a process group with a function that each worker calls first.

    Args:
        backend: Backend of torch.distributed, nccl or gloo.
        timeout_s: Seconds after which a collective operation fails.
        hook: Function that each worker calls before it joins the group.
        rendezvous: Path of a file through which the workers find each other; None for a port of the first worker, on
            which torch listens on all addresses.
    """
    import ray
    from ray.train.torch import TorchConfig
    from ray.train.torch import config as ray_torch

    class Backend(ray_torch._TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(hook)
            if rendezvous is None:
                super().on_start(worker_group, backend_config)
                return
            worker_group.execute(ray_torch._set_torch_distributed_env_vars)
            arguments = {
                "backend": backend,
                "world_size": len(worker_group),
                "init_method": f"file://{rendezvous}",
                "timeout_s": timeout_s,
            }
            set_up = ray_torch._setup_torch_process_group
            ray.get(
                [
                    worker_group.execute_single_async(rank, set_up, world_rank=rank, **arguments)
                    for rank in range(len(worker_group))
                ]
            )

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> type:
            return Backend

    return Config(backend=backend, timeout_s=timeout_s)


def remove_orphaned_groups() -> int:
    """Remove the placement groups of this job whose creator has died, and return their number.

    Ray 2.60 leaves the group of a stopped or failed trainer to a helper that needs the dashboard. Without it the
    resources stay taken. Tune's own groups have no creating actor, and detached ones may belong to another program.
    """
    import ray
    from ray._private.state import state
    from ray._raylet import PlacementGroupID
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    removed = 0
    for raw in state._connect_and_get_accessor().get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(raw)
        creator = group.creator_actor_id
        is_of_job = group.creator_job_id == job and not group.is_detached
        has_creator = bool(creator) and creator != b"\xff" * len(creator)
        if is_of_job and has_creator and group.creator_actor_dead and group.state != group.REMOVED:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
            removed += 1
    return removed
