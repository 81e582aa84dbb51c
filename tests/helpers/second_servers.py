"""The S3 server that `make servers` installs into `.servers`, and the mark of the tests that need it."""

import shutil
from pathlib import Path

import pytest

__all__ = ["S3RVER", "needs_s3rver"]

_FOLDER = Path(__file__).parents[2] / ".servers"
S3RVER = _FOLDER / "node_modules" / "s3rver" / "bin" / "s3rver.js"

needs_s3rver = pytest.mark.skipif(
    shutil.which("node") is None or not S3RVER.exists(), reason="there is no s3rver: make servers (needs npm)"
)
