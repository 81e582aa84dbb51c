"""reid-tune: find, prove and ship the best person re-identification model for your data and your hardware."""

import os

from reid_tune.environment import compiler_cache, set_defaults

__version__ = "0.1.0"

# Ray and MLflow read these when they are imported: no usage data is sent to anybody.
set_defaults({"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})
# GNU OpenMP, which comes with torch, reads this when it is loaded: a waiting thread soon sleeps, while by default it
# spins for long and takes CPU time from others. No effect if torch was imported before.
if "OMP_WAIT_POLICY" not in os.environ:
    set_defaults({"GOMP_SPINCOUNT": "1000"})
# PyTorch reads this when a part of it is imported.
set_defaults(compiler_cache())
