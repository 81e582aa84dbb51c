"""A real PostgreSQL server on 127.0.0.1, for MLflow servers that keep their runs in it."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .mlflow_servers import free_port

__all__ = ["PostgreSQL", "needs_postgresql", "postgresql_server"]

_USER = "reid"
_PATIENCE = 60  # seconds


def _program(name: str) -> str | None:
    """Path of a program; Debian keeps those of each version in a folder of their own, outside PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(versions[0]) if versions else shutil.which(name)


needs_postgresql = pytest.mark.skipif(
    _program("initdb") is None or importlib.util.find_spec("psycopg") is None,
    reason="there is no PostgreSQL server (apt-get install postgresql) or no module psycopg",
)


@dataclass(frozen=True)
class PostgreSQL:
    """A server that listens on `port`, and the folder of its socket and its log."""

    port: int
    folder: Path
    numbers: "count[int]"

    def new_database(self) -> str:
        """Create an empty database and return its address for MLflow."""
        name = f"mlflow{next(self.numbers)}"
        self._ask("postgres", f"create database {name}")
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}"

    def is_ready(self) -> bool:
        return self._ask("postgres", "select 1", check=False).returncode == 0

    def _ask(self, database: str, statement: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        command = [str(_program("psql")), "-h", "127.0.0.1", "-p", str(self.port), "-U", _USER, "-c", statement]
        return subprocess.run([*command, database], capture_output=True, text=True, check=check)


@contextmanager
def postgresql_server() -> Iterator[PostgreSQL]:
    """A new server during the block; nothing of it is left afterwards.

    PostgreSQL refuses to run as root, so that root starts it as `nobody`.
    """
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as name:
        folder, server = Path(name), PostgreSQL(free_port(), Path(name), count())
        user: dict[str, Any] = {"cwd": folder}
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
            user |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
        initdb = [str(_program("initdb")), "-D", str(folder / "data"), "-U", _USER, "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--no-sync", "--locale=C"], check=True, capture_output=True, **user)
        options = ["-p", str(server.port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
        with (folder / "log").open("wb") as log:
            command = [str(_program("postgres")), "-D", str(folder / "data"), *options]
            process = subprocess.Popen(command, stdout=log, stderr=log, **user)
        try:
            end = time.monotonic() + _PATIENCE
            while not server.is_ready():
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError((folder / "log").read_text())
                time.sleep(0.1)
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # ends the sessions of its clients
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
