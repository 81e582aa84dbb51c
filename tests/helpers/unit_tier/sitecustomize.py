"""Refuse to start real parts; every Python process that a unit test starts imports it (see tests/helpers/tiers.py)."""

import os
import re
import sys

FLAG = "REID_TUNE_UNIT_TEST"
# Ray, servers of S3 and PostgreSQL, MLflow's server, the Triton server and a benchmark.
REAL_PARTS = re.compile(
    r"/(gcs_server|raylet|initdb|s3rver)\b|\bray start\b|\bmlflow (server|ui)\b|/pytriton/|\bbenchmarks/\w+\.py\b"
)


def refuse_real_parts(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: raise where a unit test starts a process that is a real part."""
    if event != "subprocess.Popen" or FLAG not in os.environ:
        return
    words = arguments[1] if isinstance(arguments[1], (list, tuple)) else [arguments[1]]
    command = " ".join(os.fsdecode(word) for word in words if isinstance(word, (str, bytes, os.PathLike)))
    if match := REAL_PARTS.search(command):
        raise RuntimeError(f"a unit test starts '{match[0]}': mark it with pytest.mark.integration.")


sys.addaudithook(refuse_real_parts)
