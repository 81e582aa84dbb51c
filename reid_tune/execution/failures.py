"""Why runs fail."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from reid_tune.errors import InfrastructureError, NonFiniteError, OutOfMemoryError, ReidTuneError
from reid_tune.training.memory import is_out_of_memory

__all__ = ["Failure", "failure_from_report", "classify_error", "failure_to_report", "max_retries"]

# How often a run is started again after a failure: where the same would only happen again it is not.
_RETRIES = {"lost_worker": 2, "timeout": 1}


@dataclass(frozen=True)
class Failure:
    """A failure by its kind, one of out_of_memory, non_finite, invalid, lost_worker, timeout, infrastructure, error.

    `infrastructure` (a full disk) would end one run after the other: it ends the sweep, which can be resumed.
    """

    kind: str
    reason: str


def max_retries(kind: str, shared: bool) -> int:
    """How often a run is started again after this kind of failure.

    Args:
        shared: Whether it shared its GPU: out of memory there, it gets a GPU alone.
    """
    return 1 if kind == "out_of_memory" and shared else _RETRIES.get(kind, 0)


def classify_error(error: BaseException) -> Failure:
    """The failure behind an exception of a run."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OutOfMemoryError):
        return Failure("out_of_memory", text)
    if isinstance(error, NonFiniteError):
        return Failure("non_finite", text)
    if isinstance(error, InfrastructureError) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return Failure("infrastructure", text)
    if isinstance(error, ReidTuneError):
        return Failure("invalid", text)
    first = (str(error).splitlines() or [""])[0]
    if is_out_of_memory(error):
        return Failure("out_of_memory", f"out of memory: {first}")
    return Failure("error", f"{type(error).__name__}: {first}")


def failure_to_report(failure: Failure) -> dict[str, str]:
    """A failure as a run reports it."""
    return {"failed": failure.reason, "failure": failure.kind}


def failure_from_report(metrics: Mapping[str, Any]) -> Failure | None:
    """The failure in a report: the run says so itself, or a value is not finite."""
    if "failed" in metrics:
        return Failure(metrics["failure"], metrics["failed"])
    wrong = [f"{name} is {x}" for name, x in metrics.items() if isinstance(x, float) and not isfinite(x)]
    return Failure("non_finite", f"{', '.join(wrong)} in epoch {metrics['epoch']}") if wrong else None
