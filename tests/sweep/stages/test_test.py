"""The stages behind the refit, on a checkpoint that was never trained."""

import json
from pathlib import Path

import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, save_checkpoint
from reid_tune.checkpoints.names import LATEST
from reid_tune.data.demo import draw_demo_data
from reid_tune.modeling.network import untrained
from reid_tune.sweep.journal import Journal
from reid_tune.sweep.report.summary import LABELS
from reid_tune.sweep.stages import finals
from reid_tune.sweep.stages.refit import refit_run
from reid_tune.sweep.state import trial_run

from ..simulation import make_sweep


def test_the_test_stage_writes_the_threshold_beside_the_scores(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = tmp_path / "data"
    draw_demo_data(data, identities=8, images=6)
    base = {
        "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 16},
        "dataset": {
            "train_dataset_dir": str(data / "bounding_box_train"),
            "test_dataset_dir": str(data / "bounding_box_test"),
            "query_dataset_dir": str(data / "query"),
        },
        "train": {"num_epochs": 1, "optim": {"warmup_iters": 0}},
        "evaluate": {"fmr": 0.05},
    }
    sweep = make_sweep(tmp_path, base)
    journal = Journal(sweep.folder)
    for run in (trial_run(0), refit_run("winner")):
        journal.emit("suggested", run=run, parameters={})
        journal.emit("attempt", run=run, attempt=1)
        journal.emit("report", run=run, epoch=1, metrics={"mAP": 0.5})
        journal.emit("ended", run=run, state="finished", epoch=1)
    spec = sweep.experiment.model_dump(mode="json", exclude={"encryption_key"})
    network = untrained(sweep.experiment.model, 8, seed=0)
    path = sweep.folder / refit_run("winner") / "attempt-1" / LATEST
    save_checkpoint(path, Checkpoint(spec, 1, list(range(8)), [{"epoch": 1}], network.state_dict(), {}))

    assert finals.export(sweep, journal)["winner"]["file"] == "export/winner.onnx"
    result = finals.test(sweep, journal)
    written = json.loads((sweep.folder / "export" / "test.json").read_text())
    threshold = written["winner"].pop("threshold")
    assert written == result and list(result["winner"]) == list(LABELS), "the report knows every part"
    assert threshold["fmr"]["wanted"] == 0.05 >= threshold["fmr"]["reached"] and threshold["dimension"] == 16
    assert threshold["data"]["checkpoint"] == "winner.onnx"
    assert threshold["data"]["query_dataset"] == str(data / "query")
