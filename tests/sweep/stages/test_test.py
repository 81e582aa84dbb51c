"""The stages behind the refit, on a checkpoint that was never trained."""

import json
from pathlib import Path

import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, save_checkpoint
from reid_tune.checkpoints.names import LATEST
from reid_tune.data.demo import draw_demo_data
from reid_tune.data.fingerprint import fingerprint
from reid_tune.events.log import read_events
from reid_tune.modeling.network import untrained
from reid_tune.sweep.journal import Journal
from reid_tune.sweep.report.summary import LABELS
from reid_tune.sweep.stages.export import export
from reid_tune.sweep.stages.test import test as run_test
from reid_tune.sweep.state import refit_run, trial_run

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
        journal.emit("report", run=run, epoch=1, metrics={"mAP": 0.5, "loss": 2.0, "lr": 1e-3})
        journal.emit("ended", run=run, state="finished", epoch=1)
    confirmed = {"winner": 0, "trials": [{"number": 0}]}
    journal.emit("stage", stage="confirm", state="done", result=confirmed)
    tuned = {"winner": {"setting": {"k1": 3, "k2": 2, "lambda_value": 0.5}}}
    journal.emit("stage", stage="rerank", state="done", result=tuned)
    spec = sweep.experiment.model_dump(mode="json", exclude={"encryption_key"})
    network = untrained(sweep.experiment.model, 8, seed=0)
    path = sweep.folder / refit_run("winner") / "attempt-1" / LATEST
    save_checkpoint(path, Checkpoint(spec, 1, list(range(8)), [{"epoch": 1}], network.state_dict(), {}))

    assert export(sweep, journal)["winner"]["file"] == "export/winner.onnx"
    result = run_test(sweep, journal)
    written = json.loads((sweep.folder / "export" / "test.json").read_text())
    threshold = written["winner"].pop("threshold")
    assert written == result["models"] and list(result["models"]["winner"]) == [*LABELS, "latency"]
    assert "k1 = 3, k2 = 2, lambda = 0.5" in result["models"]["winner"]["tuned"]["protocol"]
    assert result["models"]["winner"]["latency"]["batches"].keys() == {"1", "16"}
    assert result["data"] == {"test folders": fingerprint(data / "query", data / "bounding_box_test")}
    assert result["looks"] == {"test folders": 1}
    pictures = {(event.get("run"), event["path"]) for event in read_events(journal.path) if event["kind"] == "artifact"}
    names = [f"export/winner-{name}.png" for name in ("cmc", "matches", "schedule")]
    assert pictures == {(run, name) for run in ("refit/winner", None) for name in names}
    assert all((sweep.folder / name).read_bytes().startswith(b"\x89PNG") for name in names)
    journal.emit("stage", stage="test", state="done", result=result)
    assert run_test(sweep, journal)["looks"] == {"test folders": 2}
    assert threshold["fmr"]["wanted"] == 0.05 >= threshold["fmr"]["reached"] and threshold["dimension"] == 16
    assert threshold["data"]["checkpoint"] == "winner.onnx"
    assert threshold["data"]["query_dataset"] == str(data / "query")
