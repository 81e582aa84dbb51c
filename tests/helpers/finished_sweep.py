"""A simulated sweep from its first event to its last, for tests that read one."""

import math
import os
import socket
from pathlib import Path
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.evaluation.intervals import paired_interval
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Score, scores
from reid_tune.execution.probe_steps import ProbeResult
from reid_tune.execution.run_source import ONE_CPU
from reid_tune.execution.stage_resources import StageResources
from reid_tune.journal.events import StageDone, StageStarted
from reid_tune.journal.journal import Journal
from reid_tune.journal.stages import STAGES
from reid_tune.journal.state import RunState
from reid_tune.search.asha import Rungs
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.plan import make_plan
from reid_tune.sweep.stages.confirm import RepeatLimit, choose_winner, confirm_sources
from reid_tune.sweep.stages.preflight import PreflightResult
from reid_tune.sweep.stages.refit import find_finalists, make_refit_runs
from reid_tune.sweep.stages.rerank import choose_settings, chosen_setting

from .events import driver_started, sweep_header
from .simulated_driver import SPACE, draw_features, drive, make_sweep, surrogate
from .simulated_search import make_source

RUNG = 2
WHOLE_SPACE = SPACE | {"re_ranking.k1": {"int": [3, 5]}, "re_ranking.lambda_value": {"uniform": [0.0, 0.8]}}
ENVIRONMENT = {
    "packages": {"python": "3.11.7", "reid-tune": "0.1.0", "torch": "2.14.1", "ray": "2.60.0"},
    "commit": "0123456789abcdef",
    "dirty": True,
    "machine": {"host": "here", "platform": "Linux", "cpu": "A Processor", "cores": 2, "gpus": []},
    "data": {"folders": ["/data/bounding_box_train"], "fingerprint": "ca10b6e659dce4e3"},
    "weights": {"file": "/weights/net.pth", "sha256": "feed"},
}
GIVEN = {
    "train.optim.name": "AdamW",
    "train.optim.base_lr": 0.001,
    "train.optim.warmup_iters": 1,
    "train.optim.triplet_loss_margin": 0.5,
}
CHECKED = PreflightResult(
    rungs=Rungs((RUNG,)),
    rung_delay=0.0,
    training_images=12936,
    data={"train": {"files": 12937, "used": 12936, "left_out": {"suffix": 1}}},
    training_identities=601,
    held_out_identities=150,
    initial_points=[{"parameters": GIVEN, "origin": "earlier/7"}],
    learned=[],
    pretrained={"/weights/net.pth": "feed"},
    warnings=["few & far"],
)
MEASURED = ProbeResult(decoding=1, start=5, step=0.2, steps=20, validation=1, memory=10**9, gpu_memory=0)
PARITY = {
    "crops": 16,
    "synthetic": False,
    "batches": [1, 3, 16],
    "cosine": 1.0,
    "difference": 1e-6,
    "same_neighbours": 1.0,
    "min_cosine": 1 - 1e-6,
    "max_difference": 5e-4,
}
LATENCY = {
    "device": "A Processor",
    "threads": 2,
    "batches": {
        "1": {"runs": 50, "median_ms": 8.0, "p90_ms": 9.5, "images_per_second": 125.0},
        "16": {"runs": 50, "median_ms": 64.0, "p90_ms": 80.0, "images_per_second": 250.0},
    },
}
REGISTERED = {"model": "reid", "version": 3, "alias": "champion"} | {
    "against": 2,
    "difference": {"mean": 0.02, "low": 0.005, "high": 0.035, "repeats": 3},
    "reason": "+2.0 (+0.5 .. +3.5) points of mAP against version 2 in 3 repeats",
}


def fails_at_high_rates(experiment: Experiment, epoch: int) -> float:
    return math.nan if experiment.train.optim.base_lr > 6e-3 else surrogate(experiment, epoch)


def simulate(
    folder: Path, trials: int = 30, until: str = "register", sections: Any = None, **driver: Any
) -> SweepConfig:
    """Run all stages up to one in this process, which then is a driver that has ended.

    Args:
        until: May be empty.
        sections: Of the sweep file, instead of the usual ones.
        driver: Values of the driver's event.
    """
    usual = {"space": WHOLE_SPACE, "budget": {"trials": trials}, "scheduler": {"reduction_factor": 2}}
    sweep = make_sweep(folder, **(usual | (sections or {})))
    with Journal(sweep.folder) as journal:
        content = {"sweep": sweep.file.model_dump(mode="json"), "spec": sweep.experiment.parameters()}
        journal.emit(sweep_header(name=sweep.file.name, uid="uid", lock=None, tracking_uri="", **content))
        own = {"pid": os.getpid(), "host": socket.gethostname(), "command": ["reid-tune"]}
        journal.emit(driver_started(**(own | driver), resumed=False, environment=ENVIRONMENT))
        for stage in STAGES[: STAGES.index(until) + 1] if until else ():
            journal.emit(StageStarted(stage=stage))
            journal.emit(StageDone(stage=stage, result=stage_result(sweep, journal, stage)))
    return sweep


def plan_of(sweep: SweepConfig) -> dict[str, Any]:
    """The result of the stage `preflight`."""
    resources = StageResources(ONE_CPU, 2)
    plan = make_plan(sweep, (RUNG,), MEASURED, resources, resources)
    return CHECKED.as_dict() | plan | {"warnings": CHECKED.warnings}


def stage_result(sweep: SweepConfig, journal: Journal, stage: str) -> dict[str, Any]:
    """What a stage leaves in the log; the runs of search, confirm and refit are simulated, and the rest from preflight
    to refit is real.
    """
    match stage:
        case "preflight":
            return plan_of(sweep)
        case "search":
            search = make_source(sweep, journal, (RUNG,))
            drive(search, fails_at_high_rates)
            states = [trial.state for trial in journal.state.trials]
            counts = {name: states.count(name) for name in ("finished", "paused", "stopped", "failed")}
            return counts | {"ended_by": search.end_reason(), "budget": sweep.file.budget.model_dump(mode="json")}
        case "confirm":
            for source in confirm_sources(sweep, journal, RepeatLimit(journal)):
                drive(source)
            return choose_winner(sweep, journal)
        case "rerank":
            return choose_settings(sweep, journal)
        case "refit":
            source = make_refit_runs(sweep, journal)
            drive(source)
            return {run: journal.state.runs[run].state for run in source.runs}
        case "export":
            return {name: {"file": f"export/{name}.onnx", "parity": PARITY} for name in find_finalists(journal)}
        case "test":
            return _tested(sweep, journal)
    return REGISTERED


def _tested(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    own = ReRanking(k1=20, k2=6, lambda_value=0.3)
    found: dict[str, dict[str, Score]] = {}
    for name, trial in find_finalists(journal).items():
        settings = {"plain": None, "re_ranked": own, "tuned": chosen_setting(journal, name)}
        each = scores(draw_features(_on_test_folders(sweep, trial)), list(settings.values()))
        found[name] = dict(zip(settings, each, strict=True))
    models: dict[str, Any] = {
        name: {kind: each.report() for kind, each in kinds.items()}
        | {"checkpoint": kinds["plain"].as_dict(), "latency": LATENCY}
        for name, kinds in found.items()
    }
    if "trial0" in found:
        models["winner"]["against_trial0"] = {
            kind: {name: _difference(each, found["trial0"][kind], name) for name in ("mAP", "mINP", "Rank-1")}
            for kind, each in found["winner"].items()
        }
    return {"models": models, "data": {"test folders": "3d2899f004483993"}, "test_evaluations": {"test folders": 2}}


def _on_test_folders(sweep: SweepConfig, trial: RunState) -> Experiment:
    experiment = with_parameters(sweep.experiment, trial.parameters, trial.name)
    return experiment.model_copy(update={"dataset": experiment.dataset.model_copy(update={"validation_seed": 99})})


def _difference(own: Score, other: Score, metric: str) -> dict[str, float]:
    ours, theirs = own.per_query[metric], other.per_query[metric]
    low, high = paired_interval(ours, theirs, own.query_ids)
    return {"mean": float((ours - theirs).mean()), "low": low, "high": high}
