"""The network interface over which the workers of a run talk.

Imports nothing heavy: processes that only supervise a run import this module too.
"""

from typing import Any

from reid_tune.environment import set_defaults
from reid_tune.training.timeouts import GROUP_TIMEOUT

__all__ = ["make_torch_config"]

_NAMED_BY = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def make_torch_config(backend: str) -> Any:
    """Ray Train's configuration of a process group whose workers may lie on several nodes.

    gloo takes the interface that the host's name leads to, which is often the loopback; here each worker names the
    one that has its node's address in the cluster, unless the environment names another.
    """
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    class Backend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(choose_network_interface)
            super().on_start(worker_group, backend_config)

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> type:
            return Backend

    return Config(backend=backend, timeout_s=int(GROUP_TIMEOUT.total_seconds()))


def choose_network_interface() -> None:
    """Name the interface of this node's address in the cluster for gloo and NCCL."""
    import psutil
    import ray.util

    own = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == own for address in addresses):
            set_defaults(dict.fromkeys(_NAMED_BY, name))
