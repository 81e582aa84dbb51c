"""The job that runs a sweep already, with simulated jobs; the integration tests have a dashboard."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.execution.cluster import submit
from reid_tune.execution.cluster.submit import _find_job, _job_metadata, _start_job
from reid_tune.search_space.load import SweepConfig, load_sweep

from ...helpers.simulated_driver import make_sweep

OPTIONS = ("--resume", "auto", "--until", "register")


class Client:
    """A dashboard with one job."""

    def __init__(self, status: str, metadata: dict[str, str] | None) -> None:
        self.job = SimpleNamespace(submission_id="job-1", status=status, metadata=metadata)
        self.loaded: SweepConfig | None = None
        self.arguments: dict[str, Any] = {}

    def list_jobs(self) -> list[SimpleNamespace]:
        return [self.job]

    def submit_job(self, **arguments: Any) -> str:
        self.arguments = arguments
        self.loaded = load_sweep(Path(arguments["runtime_env"]["working_dir"]) / "sweep.yaml")
        return "job-2"


@pytest.fixture
def sweep(tmp_path: Path) -> SweepConfig:
    return make_sweep(tmp_path)


def test_a_job_that_runs_this_sweep_is_followed(sweep: SweepConfig) -> None:
    metadata = _job_metadata(sweep, OPTIONS)
    assert _find_job(Client("RUNNING", metadata | {"of Ray": "x"}), sweep, OPTIONS) == "job-1"
    for other in (None, metadata | {"storage": "/elsewhere"}, metadata | {"reid-tune sweep": "other"}):
        assert _find_job(Client("RUNNING", other), sweep, OPTIONS) is None
    assert _find_job(Client("SUCCEEDED", metadata), sweep, OPTIONS) is None


def test_a_job_with_other_options_is_not_taken_for_this_one(sweep: SweepConfig) -> None:
    client = Client("PENDING", _job_metadata(sweep, OPTIONS))
    with pytest.raises(InputError, match="the job job-1 runs this sweep with --resume auto --until register"):
        _find_job(client, sweep, ("--until", "search"))
    assert _find_job(client, sweep, (*OPTIONS, "--dry-run")) is None


def test_the_job_has_the_same_sweep(sweep: SweepConfig) -> None:
    client = Client("SUCCEEDED", None)
    assert _start_job(client, sweep, OPTIONS) == "job-2" and client.loaded is not None
    assert client.loaded.experiment.model_dump() == sweep.experiment.model_dump()
    assert client.loaded.file.model_copy(update={"spec": sweep.file.spec}) == sweep.file
    assert "encryption" not in str(client.arguments).lower()


class Logs:
    """A dashboard that follows a job: texts, then an end, an error or silence."""

    def __init__(self, texts: list[str], end: str, status: str) -> None:
        self.texts, self.end, self.status = texts, end, status
        self.asked = 0

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for text in self.texts:
            await asyncio.sleep(0)
            yield text
        if self.end == "silence":
            await asyncio.sleep(60)
        if self.end == "error":
            raise RuntimeError("the connection broke")

    def get_job_info(self, job: str) -> SimpleNamespace:
        self.asked += 1
        if self.status == "unreachable":
            raise ConnectionError("no answer")
        return SimpleNamespace(status=self.status if self.asked == 2 else "RUNNING")


@pytest.mark.parametrize(
    ("texts", "end", "status", "error"),
    [
        ([], "end", "", None),
        (["one\n"], "end", "", None),
        (["one\n", "two\n"], "end", "", None),
        (["one\n"], "error", "", RuntimeError),
        ([], "error", "", RuntimeError),
        (["one\n"], "silence", "SUCCEEDED", None),
        (["one\n"], "silence", "FAILED", None),
        ([], "silence", "STOPPED", None),
        (["one\n"], "silence", "unreachable", ConnectionError),
    ],
)
def test_following_a_log_ends(
    texts: list[str], end: str, status: str, error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_SILENT_SECONDS", 0.02)
    client, written = Logs(texts, end, status), list[str]()
    with pytest.raises(error) if error else nullcontext():
        asyncio.run(submit._follow(client, "job-1", written.append))
    assert written == texts and (end == "silence") == bool(client.asked)


def test_a_dashboard_that_never_answers_is_one_sentence(sweep: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_ANSWER_SECONDS", 0.2)
    for name in ("RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(submit, "_require_portable", lambda sweep: None)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        with pytest.raises(InfrastructureError, match=r"the dashboard does not answer as expected \(.*timed? ?out"):
            submit.submit(sweep, address, OPTIONS, print)
