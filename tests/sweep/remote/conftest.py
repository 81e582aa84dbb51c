from collections.abc import Iterator
from pathlib import Path

import pytest

from ...storage.server import BUCKET, s3_server


@pytest.fixture(scope="session")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def storage(server: dict[str, str], request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own."""
    return f"s3://{BUCKET}/{request.node.name}"


@pytest.fixture(autouse=True)
def this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a cache of the test's own."""
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path / "cache"))
