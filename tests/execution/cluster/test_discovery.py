"""Clusters that are not there; one that is, is in the integration tests."""

import socket

import pytest

from reid_tune.config.encryption_key import KEY_FILE_VARIABLE
from reid_tune.errors import InputError
from reid_tune.execution.cluster.discovery import find_cluster
from reid_tune.execution.cluster.session import ray_session


def test_a_port_at_which_something_else_listens_is_no_cluster() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=f"--address {address}: no Ray cluster answers within 7 s"):
            find_cluster(address)


def test_auto_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match="ray start --head"):
        find_cluster("auto")


def test_the_address_of_a_dashboard_is_for_submit() -> None:
    with pytest.raises(InputError, match="is for --submit"):
        find_cluster("http://head:8265")


def test_a_key_that_other_nodes_cannot_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    with pytest.raises(InputError, match=f"name it in {KEY_FILE_VARIABLE}"), ray_session("auto", "secret"):
        pytest.fail("joined")
