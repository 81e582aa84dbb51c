"""A sweep whose refit is done, with a checkpoint that was never trained."""

from pathlib import Path

from reid_tune.checkpoints.checkpoint import Checkpoint, save_checkpoint
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.demo import draw_demo_data
from reid_tune.journal.events import EpochReported, RunEnded, RunSuggested, StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import refit_run, trial_run
from reid_tune.modeling.network import build_seeded_network
from reid_tune.search_space.load import SweepConfig

from .events import attempt_started
from .simulated_driver import make_sweep


def refitted(folder: Path) -> tuple[SweepConfig, Journal]:
    """The sweep, with its images in `folder / "data"`, and its log."""
    data = folder / "data"
    draw_demo_data(data, identities=8, images=6)
    base = {
        "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 16},
        "dataset": {
            "train_dataset_dir": str(data / "bounding_box_train"),
            "test_dataset_dir": str(data / "bounding_box_test"),
            "query_dataset_dir": str(data / "query"),
        },
        "train": {"num_epochs": 1, "deterministic": True, "optim": {"warmup_iters": 0}},
        "evaluate": {"fmr": 0.05},
    }
    sweep = make_sweep(folder, base)
    journal = Journal(sweep.folder)
    for run in (trial_run(0), refit_run("winner")):
        journal.emit(RunSuggested(run=run, parameters={}))
        journal.emit(attempt_started(run=run, attempt=1))
        journal.emit(EpochReported(run=run, epoch=1, metrics={"mAP": 0.5, "loss": 2.0, "lr": 1e-3}))
        journal.emit(RunEnded(run=run, state="finished", epoch=1))
    confirmed = {"winner": 0, "trials": [{"number": 0}]}
    journal.emit(StageDone(stage="confirm", result=confirmed))
    tuned = {"winner": {"setting": {"k1": 3, "k2": 2, "lambda_value": 0.5}}}
    journal.emit(StageDone(stage="rerank", result=tuned))
    spec = sweep.experiment.model_dump(mode="json", exclude={"encryption_key"})
    network = build_seeded_network(sweep.experiment.model, 8, seed=0)
    path = sweep.folder / refit_run("winner") / "attempt-1" / LATEST
    save_checkpoint(path, Checkpoint(spec, 1, list(range(8)), [{"epoch": 1}], network.state_dict(), {}))
    return sweep, journal
