from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reid_tune.config.encryption_key import KEY_FILE_VARIABLE
from reid_tune.execution.cluster import session


def test_workers_of_other_nodes_wait_as_the_drivers_threads_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster: the arguments for Ray are recorded."""
    options: dict[str, Any] = {}

    @contextmanager
    def record(**arguments: Any) -> Iterator[None]:
        options.update(arguments)
        yield

    monkeypatch.setattr(session, "find_cluster", lambda address: address)
    monkeypatch.setattr(session, "_connect", record)
    monkeypatch.setattr(session.os, "environ", {"GOMP_SPINCOUNT": "7", KEY_FILE_VARIABLE: "/key", "OTHER": "x"})
    with session.ray_session("head:6379"):
        pass
    variables = options["runtime_env"]["env_vars"]
    assert variables["GOMP_SPINCOUNT"] == "7" and variables[KEY_FILE_VARIABLE] == "/key"
    assert not {"OTHER", "OMP_WAIT_POLICY"} & variables.keys()
