"""The job that runs a sweep already, with simulated jobs; the integration tests have a dashboard."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reid_tune.errors import InputError
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
