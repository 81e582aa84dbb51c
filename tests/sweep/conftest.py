import os

import pytest


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write thousands of events and pull no plug."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


# Ray reads it when it is imported, which some tests do before one of them starts a cluster.
os.environ["RAY_AUTH_MODE"] = "token"
