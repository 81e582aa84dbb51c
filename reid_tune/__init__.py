"""reid-tune: find, prove and ship the best person re-identification model for your data and your hardware."""

import os

__version__ = "0.1.0"

# Both libraries read these when they are imported; nothing of this product reports to anybody.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
