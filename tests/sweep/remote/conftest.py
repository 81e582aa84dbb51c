from pathlib import Path

import pytest


@pytest.fixture
def storage(url: str) -> str:
    return url


@pytest.fixture(autouse=True)
def this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a cache of the test's own."""
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path / "cache"))
