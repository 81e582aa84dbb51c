import os

import pytest


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write thousands of events and pull no plug."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
