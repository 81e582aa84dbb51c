"""The reports of a run's workers to the driver, as Ray passes them on."""

import json
from collections.abc import Mapping
from typing import Any

from reid_tune.execution.failures import Failure, failure_to_report

__all__ = ["find_failure_report", "is_start", "pack", "pack_start", "raise_failure", "unpack"]

_FAILURE_PREFIX = "reid-tune failure: "  # of an error that passes a failure on through Ray Train


def pack(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return metrics as a result for Ray: in one value, as Ray adds many other values to a result."""
    return {"payload": json.dumps(dict(metrics))}


def pack_start() -> dict[str, str]:
    """Return the first report of a worker, by which the driver learns that the run has its resources."""
    return pack({"started": True})


def is_start(metrics: Mapping[str, Any]) -> bool:
    """Whether a report says that a worker has started."""
    return "started" in metrics


def unpack(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that a run reported from a result of Tune."""
    return dict(json.loads(result["payload"]))


def raise_failure(failure: Failure) -> None:
    """Raise an error that passes a failure on through Ray Train, see `find_failure_report`."""
    raise RuntimeError(_FAILURE_PREFIX + json.dumps(failure_to_report(failure)))


def find_failure_report(error: BaseException) -> dict[str, str] | None:
    """Return the report of a failure from an error of Ray Train; None if the error passes none on."""
    _, prefix, report = str(error).partition(_FAILURE_PREFIX)
    return dict(json.loads(report.splitlines()[0])) if prefix else None
