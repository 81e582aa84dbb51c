"""What the client knows without a server."""

from pathlib import Path

import pytest

from reid_tune.data.records import Record
from reid_tune.deploy.triton.connection import Address
from reid_tune.deploy.triton.process import own_server
from reid_tune.errors import InputError
from reid_tune.tasks.triton_e2e import sample_identities


def test_an_address_is_a_host_and_a_port() -> None:
    assert Address("http", "server.example:8000").host_and_port == ("server.example", 8000)
    assert Address("grpc", "[::1]:8001").host_and_port == ("::1", 8001)
    for wrong in ("server", "http://server:8000", "server:eight", "server:8000/v2", ":8000", "server:99999"):
        with pytest.raises(InputError, match="give HOST:PORT"):
            Address("http", wrong).host_and_port  # noqa: B018


def test_an_authority_without_a_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for name in ("gone.pem", "empty.pem"):
        with pytest.raises(InputError, match=f"--authority .*{name}"):
            Address("https", "localhost:8000", tmp_path / name).context()


def records(*identities: int) -> tuple[Record, ...]:
    return tuple(Record(Path(f"{number}.jpg"), identity, 1) for number, identity in enumerate(identities))


def test_a_sample_has_identities_of_both_sides_and_no_junk() -> None:
    queries, gallery = records(0, -1, 5, 6, 7, 8, 9), records(-1, 0, 0, 5, 6, 7, 7, 8, 11)
    assert sample_identities(queries, gallery, 100, seed=0) == {5, 6, 7, 8}
    drawn = {sample_identities(queries, gallery, 2, seed) for seed in range(40)}
    assert all(len(sample) == 2 and sample <= {5, 6, 7, 8} for sample in drawn)
    assert len(drawn) == 6, "every pair comes up"
    assert sample_identities(queries, gallery, 2, seed=3) == sample_identities(queries[::-1], gallery[::-1], 2, seed=3)
    with pytest.raises(InputError, match="no identity has both"):
        sample_identities(records(0, 1), records(0, 2), 1, seed=0)


def test_a_server_of_its_own_needs_a_program_and_a_repository(tmp_path: Path) -> None:
    for program, repository, said in (
        ("no-such-tritonserver", tmp_path, "there is no such program"),
        ("true", tmp_path / "gone", "there is no such folder"),
    ):
        with pytest.raises(InputError, match=said), own_server(program, repository):
            pass
