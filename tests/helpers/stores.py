"""SQLite stores for tests: MLflow's migrations run once in a process, and every new store is a copy."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reid_tune.tracking import store


@pytest.fixture(autouse=True, scope="session")
def copied_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Create the first store as `reid-tune` does, and the others by copying it; no store waits for the disk."""
    create = store._create_database
    template = tmp_path_factory.mktemp("store") / "mlflow.db"

    def copy(path: Path) -> None:
        if not template.exists():
            from sqlalchemy import event
            from sqlalchemy.engine import Engine

            event.listen(Engine, "connect", do_not_wait)
            create(template)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(template, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_create_database", copy)
        yield


def do_not_wait(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")
