"""Trying again while a server is away."""

import time
from collections.abc import Callable
from typing import TypeVar

from reid_tune.errors import InfrastructureError

__all__ = ["PATIENCE", "patiently"]

PATIENCE = 120.0  # seconds
_PAUSE = 1.0

_Answer = TypeVar("_Answer")


def patiently(action: Callable[[], _Answer], seconds: float | None = None) -> _Answer:
    """What an action returns, which is begun again as long as the server is away for no longer than some seconds.

    Raises:
        InfrastructureError: it stays away.
    """
    end = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while True:
        try:
            return action()
        except InfrastructureError:
            if time.monotonic() > end:
                raise
            time.sleep(_PAUSE)
