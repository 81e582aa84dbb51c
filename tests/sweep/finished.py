"""A simulated sweep from its first event to its last, for those who look at one."""

import math
import os
import socket
from pathlib import Path
from typing import Any

from reid_tune.spec.experiment import Experiment
from reid_tune.sweep.file import STAGES, Sweep
from reid_tune.sweep.journal import Journal
from reid_tune.sweep.search.search import Search

from .simulation import drive, make_sweep, surrogate

RUNG = 2
PLAN = {
    "rungs": [RUNG],
    "training_images": 12936,
    "training_identities": 601,
    "held_out_identities": 150,
    "warnings": ["few & far"],
}
SCORE = {"mAP": 0.5, "mINP": 0.25, "Rank-1": 0.75, "Rank-5": 1.0, "Rank-10": 1.0, "queries": 12, "gallery": 40}
MEASURED = SCORE | {"intervals": {"mAP": [0.4375, 0.5625]}, "protocol": "12 single queries."}
RESULTS: dict[str, dict[str, Any]] = {
    "preflight": PLAN,
    "test": {"winner": {"plain": MEASURED, "checkpoint": SCORE}, "trial0": {"plain": SCORE}},
    "register": {"model": "reid", "version": 3, "alias": "champion"},
}


def fails_at_high_rates(experiment: Experiment, epoch: int) -> float:
    return math.nan if experiment.train.optim.base_lr > 6e-3 else surrogate(experiment, epoch)


def simulate(folder: Path, trials: int = 30, until: str = "register", **driver: Any) -> Sweep:
    """Run all stages up to one in this process, which then is a driver that has ended; `until` may be empty."""
    sweep = make_sweep(folder, budget={"trials": trials}, scheduler={"reduction_factor": 2})
    with Journal(sweep.folder) as journal:
        content = {"sweep": sweep.file.model_dump(mode="json"), "spec": sweep.experiment.parameters()}
        journal.emit("sweep", name=sweep.file.name, uid="uid", lock=None, tracking_uri="", **content)
        own = {"pid": os.getpid(), "host": socket.gethostname(), "command": ["reid-tune"]}
        journal.emit("driver", **(own | driver), resumed=False)
        for stage in STAGES[: STAGES.index(until) + 1] if until else ():
            journal.emit("stage", stage=stage, state="begun", result={})
            if stage == "search":
                drive(Search(sweep, journal, (RUNG,)), fails_at_high_rates)
            journal.emit("stage", stage=stage, state="done", result=RESULTS.get(stage, {}))
    return sweep
