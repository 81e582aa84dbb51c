"""What `make servers` installs into `.servers`, and the marks of the tests that need it."""

import shutil
from pathlib import Path

import pytest

__all__ = ["LIBFAKETIME", "S3RVER", "needs_libfaketime", "needs_s3rver"]

_FOLDER = Path(__file__).parents[2] / ".servers"
S3RVER = _FOLDER / "node_modules" / "s3rver" / "bin" / "s3rver.js"
LIBFAKETIME = next(_FOLDER.glob("libfaketime/usr/lib/*/faketime/libfaketimeMT.so.1"), None)

needs_s3rver = pytest.mark.skipif(
    shutil.which("node") is None or not S3RVER.exists(), reason="there is no s3rver: make servers (needs npm)"
)
needs_libfaketime = pytest.mark.skipif(
    LIBFAKETIME is None, reason="there is no libfaketime: make servers (needs apt-get)"
)
