from pathlib import Path
from typing import Any

import pytest
import ray.util

from reid_tune.execution import network_interface
from reid_tune.execution.network_interface import torch_config
from reid_tune.training.timeouts import GROUP_TIMEOUT


@pytest.mark.parametrize(
    ("address", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("10.77.0.2", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("gpu-node-7", False),
        ("gpu-node-7.cluster.local", False),
        ("localhost", False),
    ],
)
def test_workers_find_each_other_through_a_file_on_one_machine_only(
    address: str, is_local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: list[Any] = []
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: address)
    monkeypatch.setattr(network_interface, "torch_config_with_hook", lambda *values: arguments.extend(values))
    with torch_config("gloo"):
        *_, rendezvous = arguments
        assert (rendezvous is not None) == is_local
        folder = Path(rendezvous or "/").parent
        assert folder.is_dir() and (not is_local or folder.stat().st_mode & 0o777 == 0o700)
    assert not is_local or not folder.exists()


def test_workers_of_a_trial_wait_as_long_as_those_of_a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    with torch_config("gloo") as config:
        assert config.backend == "gloo" and config.timeout_s == GROUP_TIMEOUT.total_seconds() == 7200
