"""The stages after the refit, on a checkpoint that was never trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.data.fingerprint import fingerprint
from reid_tune.errors import RunFailedError
from reid_tune.evaluation import score as evaluation_score
from reid_tune.evaluation.score import Retrieval
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import ArtifactWritten, StageDone
from reid_tune.journal.test_set_usage import count_test_evaluations
from reid_tune.sweep.stages import test_set as stage
from reid_tune.sweep.stages.export import export_finalists
from reid_tune.sweep.stages.test_set import evaluate_finalists as run_test
from reid_tune.tasks.common.calibration import Calibration, calibrate

from ...helpers.refitted_sweep import refitted


@pytest.mark.timeout(120)  # two real stages, with an export
def test_the_test_stage_writes_the_threshold_next_to_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    data = tmp_path / "data"
    sweep, journal = refitted(tmp_path)
    assert export_finalists(sweep, journal)["winner"]["file"] == "export/winner.onnx"
    device, seen = torch.device("cpu", 0), []  # unlike torch.device("cpu")

    class Ranked(Retrieval):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            seen.append((arguments[2], torch.are_deterministic_algorithms_enabled()))

    def calibrated(*arguments: Any, device: torch.device) -> Calibration:
        seen.append((device, "calibrated"))
        return calibrate(*arguments, device=device)

    monkeypatch.setattr(evaluation_score, "Retrieval", Ranked)
    monkeypatch.setattr(stage, "scoring_device", lambda _: device)
    monkeypatch.setattr(stage, "calibrate", calibrated)
    result = run_test(sweep, journal)
    assert seen == [(device, True), (device, True), (device, "calibrated")], "the ONNX file and the checkpoint"
    written = json.loads((sweep.folder / "export" / "test.json").read_text())
    threshold = written["winner"].pop("threshold")
    assert written == result["models"] and list(result["models"]["winner"]) == [
        "plain",
        "re_ranked",
        "tuned",
        "checkpoint",
        "latency",
    ]
    assert "k1 = 3, k2 = 2, lambda = 0.5" in result["models"]["winner"]["tuned"]["protocol"]
    assert result["models"]["winner"]["latency"]["batches"].keys() == {"1", "16"}
    assert result["data"] == {"test folders": fingerprint(data / "query", data / "bounding_box_test")}
    assert result["test_evaluations"] == {"test folders": 1}
    pictures = {(event.run, event.path) for event in read_events(journal.path) if isinstance(event, ArtifactWritten)}
    names = [f"export/winner-{name}.png" for name in ("cmc", "matches", "schedule")]
    assert pictures == {(run, name) for run in ("refit/winner", None) for name in names}
    assert all((sweep.folder / name).read_bytes().startswith(b"\x89PNG") for name in names)
    journal.emit(StageDone(stage="test", result=result))
    assert run_test(sweep, journal)["test_evaluations"] == {"test folders": 2}
    journal.emit(StageDone(stage="test", result=result))
    monkeypatch.setattr(stage, "_MAP_TOLERANCE", {"fp32": -1.0})
    digest = fingerprint(data / "query", data / "bounding_box_test")
    with pytest.raises(RunFailedError, match="but its checkpoint scores"):
        run_test(sweep, journal)
    assert count_test_evaluations(digest, sweep.folder.parent) == count_test_evaluations(digest) == 3
    assert threshold["fmr"]["wanted"] == 0.05 >= threshold["fmr"]["reached"] and threshold["dimension"] == 16
    assert threshold["data"]["checkpoint"] == "winner.onnx"
    assert threshold["data"]["query_dataset"] == str(data / "query")
