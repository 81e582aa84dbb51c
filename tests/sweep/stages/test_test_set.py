"""The stages after the refit, on a checkpoint that was never trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid_tune.data.fingerprint import fingerprint
from reid_tune.errors import RunFailedError
from reid_tune.evaluation import score as evaluation_score
from reid_tune.evaluation.features import make_feature_set
from reid_tune.evaluation.score import Retrieval, Score, score
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import ArtifactWritten, StageDone
from reid_tune.journal.test_set_usage import count_test_evaluations
from reid_tune.sweep.stages import test_set as stage
from reid_tune.sweep.stages.export import export_finalists
from reid_tune.sweep.stages.test_set import evaluate_finalists as run_test
from reid_tune.sweep.stages.test_set import pooled_difference
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


def seed_scores(noise: float) -> list[Score]:
    """Scores of three models that differ in their seed, on 10 identities with 2 queries and 3 gallery images each."""
    ids, cameras = np.arange(10).repeat(5), np.tile([1, 1, 2, 3, 4], 10)
    centres, is_query = np.random.default_rng(7).normal(size=(10, 8))[ids], cameras == 1
    results = []
    for seed in range(3):
        rows = centres + noise * np.random.default_rng(seed).normal(size=(50, 8))
        query = rows[is_query], ids[is_query], cameras[is_query]
        results.append(score(make_feature_set(*query, rows[~is_query], ids[~is_query], cameras[~is_query])))
    return results


def test_refits_with_several_seeds_are_pooled_over_seeds_and_identities() -> None:
    winner, baseline = seed_scores(0.8), seed_scores(1.2)
    pooled = pooled_difference(winner, baseline)["mAP"]
    differences = [a.average_precision - b.average_precision for a, b in zip(winner, baseline, strict=True)]
    means = [float(values.mean()) for values in differences]
    between = sum((value - sum(means) / 3) ** 2 for value in means) / 2 / 3
    shared = 0.0
    for one in range(3):
        for other in range(3):
            for person in range(10):
                parts = [
                    sum(differences[seed][query] - means[seed] for query in (2 * person, 2 * person + 1)) / 20
                    for seed in (one, other)
                ]
                shared += parts[0] * parts[1] / 9 if one != other else 0.0
    margin = 4.302653 * (between + max(shared, 0.0)) ** 0.5
    assert shared > 0 and pooled == pytest.approx(
        {"mean": sum(means) / 3, "low": sum(means) / 3 - margin, "high": sum(means) / 3 + margin, "repeats": 3}
    )
