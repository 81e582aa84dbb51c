import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from .helpers.gpus import hides_gpus, is_unit_tier
from .helpers.second_servers import needs_s3rver
from .helpers.shortcuts import encrypting_cheaply, translating_once, without_fsync

# Set before torch is imported, and for the processes that tests start: on small tensors threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray reads it when it is imported, which some tests do before one of them starts a cluster.
os.environ["RAY_AUTH_MODE"] = "token"

# A busy machine is no fault of the code, and the same code passes twice.
STEADY: dict[str, Any] = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("unit", max_examples=30, **STEADY)
settings.register_profile("thorough", max_examples=300, **STEADY)


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs before a test asks for one, from the processes that tests start too; workers of xdist inherit it.

    Tests that name no device would take a GPU, and expect what the CPU computes.
    """
    if hides_gpus(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    settings.load_profile("unit" if is_unit_tier(config.option.markexpr) else "thorough")


@pytest.fixture(autouse=True, scope="session")
def shortcuts(pytestconfig: pytest.Config) -> Iterator[None]:
    """Replace what is slow and not in question in the unit tier; the tests marked `integration` have the real parts."""
    if not is_unit_tier(pytestconfig.option.markexpr):
        yield
        return
    with without_fsync(), encrypting_cheaply(), translating_once():
        yield


@pytest.fixture(autouse=True, scope="session")
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images go to a temporary folder, of the processes that tests start too."""
    before = os.environ.get("REID_TUNE_CACHE_DIR")
    os.environ["REID_TUNE_CACHE_DIR"] = str(tmp_path_factory.mktemp("image-cache"))
    yield
    if before is None:
        del os.environ["REID_TUNE_CACHE_DIR"]
    else:
        os.environ["REID_TUNE_CACHE_DIR"] = before


@pytest.fixture(autouse=True, scope="module")
def module_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Evaluations of test sets are counted in a temporary folder, of the processes that a module starts too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def state_folder(module_state_folder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test counts from 0."""
    monkeypatch.setenv("XDG_STATE_HOME", str(Path(os.environ["XDG_STATE_HOME"], secrets.token_hex(8))))


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write thousands of events and do not test durability."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="session", params=["moto", pytest.param("s3rver", marks=[pytest.mark.integration, needs_s3rver])])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server that speaks S3, and the environment of its clients."""
    from .helpers.s3_server import s3_process, s3_server

    if request.param == "moto":
        with s3_server() as environment:
            yield environment
    else:
        with s3_process(tmp_path_factory.mktemp("s3rver")) as process:
            yield process.environment


@pytest.fixture
def url(server: dict[str, str], request: pytest.FixtureRequest) -> str:
    """A prefix in a bucket of its own for each test."""
    from .helpers.s3_server import BUCKET

    return f"s3://{BUCKET}/{request.node.originalname}"


HANDLED = (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP)
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """A command sets handlers for its process, which is that of the tests here."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in before.items():
        if handler is not None:  # None: set by a library that is not Python's
            signal.signal(number, handler)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `reid-tune` with some arguments in this process: its status, stdout and stderr."""
    from reid_tune import cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reid-tune", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


# A job in the background starts with SIGINT ignored, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

from .chaos.table import pytest_terminal_summary  # noqa: E402, F401
from .helpers.stores import copied_stores  # noqa: E402, F401
from .helpers.tiers import pytest_collection_modifyitems, pytest_runtest_protocol  # noqa: E402, F401
