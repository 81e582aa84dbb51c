"""Trials that pause at a rung on a real Ray, and continue from their checkpoints."""

from collections import Counter
from pathlib import Path

import pytest

from reid_tune.journal.events import AttemptStarted, RunRetried

from ..helpers.cli_sweep import Bench

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]


def test_a_promoted_trial_continues_after_its_last_epoch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, scheduler={"mode": "promote", "reduction_factor": 2}, budget={"trials": 6})
    bench.run("sweep", "sweep.yaml", "--until", "search")
    trials = bench.report()["trials"]
    attempts = Counter(event.run for event in bench.events if isinstance(event, AttemptStarted))
    epochs = [(event.run, event.epoch) for event in bench.reports()]
    assert len(epochs) == len(set(epochs)), "an epoch was trained twice"
    assert max(attempts.values()) > 1 and not bench.count(RunRetried), attempts
    assert {trial["state"] for trial in trials} == {"paused", "finished"}
    assert {trial["epoch"] for trial in trials if trial["state"] == "finished"} == {4}
