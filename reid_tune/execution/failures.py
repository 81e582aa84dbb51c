"""The kinds of failures of runs, and which of them are retried."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from reid_tune.errors import InfrastructureError, NonFiniteError, OutOfMemoryError, ReidTuneError
from reid_tune.files import is_disk_error
from reid_tune.training.memory import is_out_of_memory

__all__ = ["Failure", "classify_error", "failure_from_report", "failure_to_report", "max_retries"]

# Retries by the kind of failure; a failure that would only happen again is not retried.
_MAX_RETRIES = {"lost_worker": 2, "timeout": 1}


@dataclass(frozen=True)
class Failure:
    """The failure of a run.

    Attributes:
        kind: One of out_of_memory, non_finite, invalid, lost_worker, timeout, infrastructure and error.
            `infrastructure` (a full disk) would end one run after the other: it ends the sweep, which can be resumed.
        reason: One line for users.
    """

    kind: str
    reason: str


def max_retries(kind: str, shared: bool) -> int:
    """Return how often a run is retried after a kind of failure.

    Args:
        kind: Kind of the failure, see `Failure`.
        shared: Whether the run shared its GPU: after out_of_memory the retry then has a whole GPU.
    """
    return 1 if kind == "out_of_memory" and shared else _MAX_RETRIES.get(kind, 0)


def classify_error(error: BaseException) -> Failure:
    """Return the failure that an exception of a run stands for."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OutOfMemoryError):
        return Failure("out_of_memory", message)
    if isinstance(error, NonFiniteError):
        return Failure("non_finite", message)
    if isinstance(error, InfrastructureError) or is_disk_error(error):
        return Failure("infrastructure", message)
    if isinstance(error, ReidTuneError):
        return Failure("invalid", message)
    first_line = (str(error).splitlines() or [""])[0]
    if is_out_of_memory(error):
        return Failure("out_of_memory", f"out of memory: {first_line}")
    return Failure("error", f"{type(error).__name__}: {first_line}")


def failure_to_report(failure: Failure) -> dict[str, str]:
    """Return the report with which a run passes its failure on."""
    return {"failed": failure.reason, "failure": failure.kind}


def failure_from_report(metrics: Mapping[str, Any]) -> Failure | None:
    """Return the failure in a report: one that the run passes on, or values that are not finite; None without one."""
    if "failed" in metrics:
        return Failure(metrics["failure"], metrics["failed"])
    non_finite = [f"{name} is {x}" for name, x in metrics.items() if isinstance(x, float) and not isfinite(x)]
    return Failure("non_finite", f"{', '.join(non_finite)} in epoch {metrics['epoch']}") if non_finite else None
