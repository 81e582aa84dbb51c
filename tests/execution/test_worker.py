import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.errors import InfrastructureError
from reid_tune.execution import worker as trial
from reid_tune.execution.failures import Failure
from reid_tune.execution.fixed_runs import FixedRuns
from reid_tune.execution.gpu_memory import DEFAULT_CUDA_CONTEXT
from reid_tune.execution.run_source import ResourceRequest
from reid_tune.journal.events import StageDone
from reid_tune.journal.journal import Journal

from ..helpers.simulated_driver import make_sweep

pytestmark = pytest.mark.usefixtures("no_fsync")
FULL = Failure("out_of_memory", "out of memory")


@pytest.mark.parametrize(
    ("probe", "context"),
    [({"gpu_context": 700}, 700), ({"gpu_context": 0}, DEFAULT_CUDA_CONTEXT)],
)
def test_a_run_on_a_share_of_a_gpu_leaves_the_memory_that_the_probe_has_measured(
    probe: dict[str, Any], context: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[float, int]] = []
    monkeypatch.setattr(trial, "limit_memory", lambda share, context: limits.append((share, context)))
    journal = Journal(tmp_path / "log")
    journal.emit(StageDone(stage="preflight", result={"probe": probe}))
    source = FixedRuns(make_sweep(tmp_path), journal, {"refit/winner": {}}, ResourceRequest(1, 0.25))
    for share in (0.25, 1):
        attempt = source.next_attempt()
        assert attempt is not None
        assert trial._device(trial.make_trial_config(attempt, "")) == torch.device("cuda", 0)
        assert limits.pop() == (share, context) and not limits
        source.report_lost("refit/winner", FULL)  # Then it gets a whole GPU.


def test_a_trial_compiles_on_its_own_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def broken(*_: Any) -> Iterator[None]:
        raise InfrastructureError("no disk.")
        yield

    monkeypatch.setattr("reid_tune.execution.run_files.run_files", broken)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(os, "environ", {})
    assert trial._train({"threads": 3}, print) == Failure("infrastructure", "no disk.")
    assert os.environ == {"TORCHINDUCTOR_COMPILE_THREADS": "3"}
