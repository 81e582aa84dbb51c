"""reid-tune: find, prove and ship the best person re-identification model for your data and your hardware."""

import os
from typing import TYPE_CHECKING, Any

from reid_tune.environment import compiler_cache, set_defaults

if TYPE_CHECKING:
    from reid_tune.api import SweepResult, load_sweep, run_sweep

__all__ = ["SweepResult", "__version__", "load_sweep", "run_sweep"]

__version__ = "0.1.0"

# Ray and MLflow read these when they are imported: no usage data is sent to anybody.
set_defaults({"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})
# GNU OpenMP, which comes with torch, reads this when it is loaded: a waiting thread soon sleeps, while by default it
# spins for long and takes CPU time from others. No effect if torch was imported before.
if "OMP_WAIT_POLICY" not in os.environ:
    set_defaults({"GOMP_SPINCOUNT": "1000"})
# PyTorch reads this when a part of it is imported.
set_defaults(compiler_cache())


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is used: the command line does not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reid_tune import api

    return getattr(api, name)
