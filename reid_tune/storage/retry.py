"""Retrying an action while a server is unreachable."""

import time
from collections.abc import Callable
from typing import TypeVar

from reid_tune.errors import InfrastructureError

__all__ = ["RETRY_SECONDS", "retry_while_unavailable"]

RETRY_SECONDS = 120.0
_PAUSE_SECONDS = 1.0

_Result = TypeVar("_Result")


def retry_while_unavailable(action: Callable[[], _Result], seconds: float | None = None) -> _Result:
    """Return the result of an action, which is repeated while it raises InfrastructureError.

    Args:
        seconds: Time after which no further attempt begins; by default RETRY_SECONDS.

    Raises:
        InfrastructureError: the server is still unreachable after that time.
    """
    end = time.monotonic() + (RETRY_SECONDS if seconds is None else seconds)
    while True:
        try:
            return action()
        except InfrastructureError:
            if time.monotonic() > end:
                raise
            time.sleep(_PAUSE_SECONDS)
