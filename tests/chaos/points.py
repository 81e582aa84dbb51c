"""The points at which processes of a sweep are killed, by kind; see `injection/sitecustomize.py` for their form."""

import os
from itertools import chain

import pytest

from reid_tune.journal.stages import STAGES

__all__ = ["POINTS", "SHORT", "kill_points"]

SHORT = os.environ.get("REID_TUNE_CHAOS") != "all"  # one point of each kind, as in `make integration`
_POINTS_OF_SWEEP = 8  # at most, on the way of one sweep; a run is given up after its third lost worker
_WORKER_POINTS_OF_SWEEP = 2

_APPEND = "reid_tune.journal.event_log:EventLog.append"
_RENAME = "os:replace"
_WRITE_CHECKPOINT = "reid_tune.training.checkpoint_writer:CheckpointWriter._write"
_RUNS = ("trials/0000", "confirm/0000-1", "refit/winner")
# In the order in which a sweep writes them.
_EVENTS = (
    "sweep",
    "driver_started",
    "champion",
    *chain.from_iterable((f"stage_started-{stage}", f"stage_done-{stage}") for stage in STAGES),
    *(f"{kind}-{run}" for run in _RUNS for kind in ("suggested", "attempt", "started", "report", "ended")),
    "selected",
    "artifact",
    "test_evaluated",
    "registered",
    "driver_ended",
)
_DRIVER_FILES = (
    "driver.json",
    "train.txt",
    "run.json",
    "tracking.cursor.json",
    "winner.onnx",
    "winner.pth",
    "winner-cmc.png",
    "test.json",
    "winner.yaml",
    "report.html",
)
_WORKER_FILES = ("reid_model_latest.pth", "features.npz", "model_epoch_*.pth")


def _around(victim: str, function: str, *names: str, within: bool = False) -> list[str]:
    moments = ("before", "within", "after") if within else ("before", "after")
    return [f"{victim} {moment} {function} {name}".strip() for name in names or ("",) for moment in moments]


POINTS = {
    "driver at an event": _around("driver", _APPEND, *_EVENTS, within=True),
    "driver at a rename": _around("driver", _RENAME, *_DRIVER_FILES),
    "driver at the cache": [
        *_around("driver", "reid_tune.data.image_cache.file:write_cache_file"),
        *_around("driver", _RENAME, "*.crops"),
    ],
    "driver at the sender": [
        *_around("driver", "reid_tune.tracking.cursor:Cursor._send_batch"),
        *_around("driver", "reid_tune.tracking.run_writer:RunWriter.flush"),
        *_around("driver", "reid_tune.tracking.run_writer:RunWriter.end_run"),
        *_around("driver", "reid_tune.tracking.cursor:Cursor._send_files"),
    ],
    "driver at the export": [
        *_around("driver", "reid_tune.tasks.export:export_checkpoint"),
        *_around("driver", "reid_tune.checkpoints.checkpoint:strip_checkpoint"),
    ],
    "driver at the registration": [
        *_around("driver", "reid_tune.tracking.registry.register:_upload"),
        *_around("driver", "reid_tune.tracking.registry.register:_set_alias"),
        *_around("driver", "reid_tune.tracking.registry.alias_changes:move_alias"),
        *_around("driver", "reid_tune.tracking.registry.register:register_version"),
    ],
    # Each needs a worker that is lost.
    "driver at a retry": list(
        chain.from_iterable(
            zip(
                [
                    f"worker before {_WRITE_CHECKPOINT}",
                    *(f"worker after {_RENAME} {name}" for name in _WORKER_FILES[:2]),
                ],
                _around("driver", _APPEND, "retry", within=True),
                strict=True,
            )
        )
    ),
    "worker at a rename": _around("worker", _RENAME, *_WORKER_FILES),
    "worker at its checkpoint": _around("worker", _WRITE_CHECKPOINT),
    "worker at its report": _around("worker", "reid_tune.execution.worker:_RayReporter.report_epoch"),
}


def kill_points() -> list["pytest.param"]:
    """Return parameters of a test: points by kind that one sweep meets on its way, all kinds in the short form.

    The short form has the middle one of each kind. The long form has all, a few per sweep.
    """
    if SHORT:
        return [pytest.param({kind: [points[len(points) // 2]] for kind, points in POINTS.items()}, id="one of each")]
    cases = []
    for kind, points in POINTS.items():
        size = _WORKER_POINTS_OF_SWEEP if kind.startswith("worker") else _POINTS_OF_SWEEP
        for start in range(0, len(points), size):
            cases.append(pytest.param({kind: points[start : start + size]}, id=f"{kind} {start // size + 1}"))
    return cases
