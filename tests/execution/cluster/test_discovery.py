"""Clusters that do not exist; the integration tests have one that does."""

import platform
import socket
from collections.abc import Callable
from importlib import metadata

import pytest

from reid_tune.config.encryption_key import KEY_FILE_VARIABLE
from reid_tune.errors import InputError
from reid_tune.execution.cluster import discovery as module
from reid_tune.execution.cluster.discovery import find_cluster
from reid_tune.execution.cluster.session import ray_session


@pytest.mark.integration
def test_a_port_with_another_service_is_not_a_cluster() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=f"--address {address}: no Ray cluster answers within 7 s"):
            find_cluster(address)


@pytest.mark.integration
def test_auto_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match="ray start --head"):
        find_cluster("auto")


Answers = Callable[[dict[str, object], dict[str, object]], None]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Set the answers of a cluster to this machine and to one without its token, without a cluster."""

    def set_answers(answer: dict[str, object], stranger: dict[str, object]) -> None:
        monkeypatch.setattr(module, "_query", lambda address, variables=None: stranger if variables else answer)

    return set_answers


ANSWER = {"address": "10.0.0.1:6379", "ray": metadata.version("ray"), "python": platform.python_version()}


def test_a_cluster_that_refuses_strangers_is_found(answers: Answers) -> None:
    answers(ANSWER, {"refused": True})
    assert find_cluster("head:6379") == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("answer", "stranger", "message"),
    [
        ({}, {}, "no Ray cluster answers within 7 s: check host and port"),
        ({"address": None}, {"refused": True}, "no Ray cluster answers within 7 s"),
        (ANSWER, ANSWER, "the cluster does not check tokens"),
        ({"refused": True}, {"refused": True}, "the cluster refuses this machine's token"),
        ({"missing": "token"}, {"refused": True}, "this machine has no token"),
        (ANSWER | {"ray": "1.0"}, {"refused": True}, "ray 1.0 there, .* here: install the same versions"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_sentence(
    answer: dict[str, object], stranger: dict[str, object], message: str, answers: Answers
) -> None:
    answers(answer, stranger)
    with pytest.raises(InputError, match=f"^--address head:6379: {message}"):
        find_cluster("head:6379")


def test_the_address_of_a_dashboard_is_for_submit() -> None:
    with pytest.raises(InputError, match="is for --submit"):
        find_cluster("http://head:8265")


def test_a_key_that_other_nodes_cannot_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    with pytest.raises(InputError, match=f"name it in {KEY_FILE_VARIABLE}"), ray_session("auto", "secret"):
        pytest.fail("joined")
