import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reid_tune.config.encryption_key import KEY_FILE_VARIABLE
from reid_tune.errors import InfrastructureError, InputError
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


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Exception("The current node timed out during startup. This could happen"), "The current node timed out"),
        (RuntimeError("first line\nsecond line"), "(first line)"),
        (ConnectionError("ray.init() failed"), "ray.init() failed"),
        (ValueError("The plasma directory file /dev/shm does not exist"), "/dev/shm does not exist"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (FileNotFoundError(2, "No such file or directory", "/dev/shm"), "'/dev/shm'"),
        (MemoryError(), "(MemoryError)"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (AssertionError(), "(AssertionError)"),
    ],
)
@pytest.mark.parametrize("address", ["local", "10.0.0.1:6379"])
def test_a_start_that_fails_is_one_sentence(
    error: Exception, reason: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    expected = InfrastructureError if address == "local" else InputError
    with pytest.raises(expected) as raised, session._connect(address=address):
        pass
    text = str(raised.value)
    assert reason in text and "\n" not in text and text.endswith((" and try again.", " with --submit."))


def test_a_local_session_cleans_up_after_a_failed_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray

    seen: list[str] = []

    def fail(**options: Any) -> None:
        seen.extend((options["_temp_dir"], os.environ["TMPDIR"], os.environ["REID_TUNE_ENCRYPTION_KEY"]))
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setenv("TMPDIR", "/tmp")
    for name in (*session._WORKER_SETTINGS, *session._TUNE_SETTINGS, "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
    with pytest.raises(InfrastructureError), session.ray_session(None, "a key"):
        pass
    folder, temporary, key = map(str, seen)
    assert Path(folder).parent == Path(temporary).parent and not Path(folder).parent.exists() and key == "a key"
    assert os.environ["TMPDIR"] == "/tmp" and "REID_TUNE_ENCRYPTION_KEY" not in os.environ
    assert "RAY_enable_metrics_collection" not in os.environ
