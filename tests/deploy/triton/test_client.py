"""What the client knows without a server."""

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, Literal

import pytest
from tritonclient.utils import InferenceServerException

from reid_tune.data.records import ImageRecord
from reid_tune.deploy.triton import connection
from reid_tune.deploy.triton.address import Address
from reid_tune.deploy.triton.client import TritonModel
from reid_tune.deploy.triton.connection import Connection
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.tasks.triton_e2e import sample_identities

from ...helpers.triton_proxy import make_certificate


def test_an_address_is_a_host_and_a_port() -> None:
    assert Address("http", "server.example:8000").host_and_port == ("server.example", 8000)
    assert Address("grpc", "[::1]:8001").host_and_port == ("::1", 8001)
    assert Address("http", "triton_1.b-c:8000").host_and_port == ("triton_1.b-c", 8000)
    parts = ("server", "http://server:8000", "server:eight", "server:8000/v2", ":8000", "server:99999")
    for wrong in (*parts, "a b:8000", "me@host:8000", "a..b:8000", "x" * 64 + ":8000"):
        with pytest.raises(InputError, match="give HOST:PORT"):
            Address("http", wrong)


def test_an_authority_without_a_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for name in ("gone.pem", "empty.pem"):
        with pytest.raises(InputError, match=f"--authority .*{name}"):
            Address("https", "localhost:8000", tmp_path / name)


@pytest.fixture
def silent() -> Iterator[str]:
    """HOST:PORT of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_server_that_says_nothing_is_not_waited_for(protocol: Literal["http", "grpc"], silent: str) -> None:
    with pytest.raises(InfrastructureError, match=f"no server answers at {protocol}://{silent}"):
        TritonModel(Address(protocol, silent, timeout=0.5), "people")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_address_of_ipv6_is_understood(protocol: Literal["http", "grpc"]) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6 here")
    with listener:
        place = f"[::1]:{listener.getsockname()[1]}"
        with pytest.raises(
            InfrastructureError, match=r"no server answers at .*\[::1\]:\d+ \((timed out|no answer in time)"
        ):
            TritonModel(Address(protocol, place, timeout=0.5), "people")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_question_has_a_limit_and_is_given_up_where_nobody_waits(
    protocol: Literal["http", "grpc"], silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_FIRST_WAIT", 1000)
    over = Event()
    over.set()
    asked = Connection(Address(protocol, silent, timeout=0.5), over)
    with pytest.raises(InfrastructureError, match=f"the Triton server {protocol}://{silent} does not answer"):
        asked.config("people", "")
    asked.close()


@pytest.mark.parametrize(("status", "said"), [("500", "fails .it broke.: see its log"), ("503", "does not answer")])
def test_a_server_that_fails_is_asked_again(status: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_FIRST_WAIT", 0.001)
    asked = Connection(Address("http", "127.0.0.1:9"), Event())
    answers: list[Any] = [InferenceServerException("it broke", status)] * 4 + ["well"]

    def question() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert asked._request(question) == "well"
    answers.extend([InferenceServerException("it broke\nwith a trace", status)] * 5)
    with pytest.raises(InfrastructureError, match=said):
        asked._request(question)


def test_one_authority_alone_is_trusted(tmp_path: Path) -> None:
    address = Address("https", "127.0.0.1:9", make_certificate(tmp_path, "127.0.0.1"))
    library = Connection(address, Event())._client._client_stub._connection_pool
    assert len(library.ssl_context.get_ca_certs()) == 1 and library.ssl_context.check_hostname


def records(*identities: int) -> tuple[ImageRecord, ...]:
    return tuple(ImageRecord(Path(f"{number}.jpg"), identity, 1) for number, identity in enumerate(identities))


def test_a_sample_has_identities_of_both_sides_and_no_junk() -> None:
    queries, gallery = records(0, -1, 5, 6, 7, 8, 9), records(-1, 0, 0, 5, 6, 7, 7, 8, 11)
    assert sample_identities(queries, gallery, 100, seed=0) == {5, 6, 7, 8}
    drawn = {sample_identities(queries, gallery, 2, seed) for seed in range(40)}
    assert all(len(sample) == 2 and sample <= {5, 6, 7, 8} for sample in drawn)
    assert len(drawn) == 6, "every pair comes up"
    assert sample_identities(queries, gallery, 2, seed=3) == sample_identities(queries[::-1], gallery[::-1], 2, seed=3)
    with pytest.raises(InputError, match="no identity has both"):
        sample_identities(records(0, 1), records(0, 2), 1, seed=0)
