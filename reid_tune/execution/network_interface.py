"""The network interface over which the workers of a run communicate.

Imports nothing heavy: processes that only supervise a run import this module too.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reid_tune.environment import set_defaults
from reid_tune.execution.ray_private import torch_config_with_hook
from reid_tune.storage.temporary_folder import temporary_folder
from reid_tune.training.timeouts import GROUP_TIMEOUT

__all__ = ["torch_config"]

_INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@contextmanager
def torch_config(backend: str) -> Iterator[Any]:
    """Yield Ray Train's configuration of a process group whose workers may be on several nodes.

    gloo takes the interface that the host's name leads to, which is often the loopback. Instead each worker names the
    interface that has its node's address in the cluster, unless the environment names another. The workers of a local
    cluster find each other through a file, as torch can open its port on all addresses only.

    Args:
        backend: Backend of torch.distributed, nccl or gloo.
    """
    import ray.util

    timeout = int(GROUP_TIMEOUT.total_seconds())
    if not _is_loopback(ray.util.get_node_ip_address()):
        yield torch_config_with_hook(backend, timeout, choose_network_interface, None)
        return
    with temporary_folder() as folder:
        yield torch_config_with_hook(backend, timeout, choose_network_interface, f"{folder}/rendezvous")


def _is_loopback(address: str) -> bool:
    """Whether an address of a node is the loopback; a host name, which a node may have instead, is not."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def choose_network_interface() -> None:
    """Name the interface of this node's address in the cluster for gloo and NCCL."""
    import psutil
    import ray.util

    node_address = ray.util.get_node_ip_address()
    for interface, addresses in psutil.net_if_addrs().items():
        if any(address.address == node_address for address in addresses):
            set_defaults(dict.fromkeys(_INTERFACE_VARIABLES, interface))
