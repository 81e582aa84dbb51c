"""Scores by camera pair and by identity, as commands and files give them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from reid_tune import cli
from reid_tune.evaluation.breakdown import CameraPairs, per_identity
from reid_tune.evaluation.features import write_features
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import scores
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.score import run_score

from ..helpers.evaluation_reference import made_up
from .conftest import Spec


@pytest.mark.parametrize("reranking", [None, "6,2,0.3"])
def test_score_has_the_rows_beside_the_flat_keys(tmp_path: Path, reranking: str | None) -> None:
    path, features = tmp_path / "f.npz", made_up()
    write_features(path, features)
    pairs = CameraPairs(features)
    (whole,) = scores(features, [ReRanking(6, 2, 0.3) if reranking else None], watch=pairs)
    flat = whole.report() | {"junk": int((features.gallery_ids < 0).sum())}
    assert run_score(path, reranking).as_dict() == flat
    assert run_score(path, reranking, "camera").as_dict() == flat | {"per_camera_pair": pairs.rows()}
    assert run_score(path, reranking, "identity").as_dict() == flat | {"per_identity": per_identity(whole)}


def test_the_table_has_the_whole_and_then_the_weakest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_features(tmp_path / "f.npz", made_up())
    for by, label in (
        ("camera", "query camera {query_camera}, gallery camera {gallery_camera}"),
        ("identity", "identity {identity}"),
    ):
        monkeypatch.setattr(sys, "argv", ["reid-tune", "score", str(tmp_path / "f.npz"), "--by", by])
        with pytest.raises(SystemExit):
            cli.main()
        cells = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
        (rows,) = run_score(tmp_path / "f.npz", None, by).parts.values()
        assert [cell[0].strip() for cell in cells] == ["plain", *(label.format(**row) for row in rows)]
        assert [cell[1].strip() for cell in cells[1:]] == [f"{100 * row['mAP']:.1f}" for row in rows]


def test_details_of_evaluate_are_in_the_metrics_alone(checkpoint: Path, spec: Spec, tmp_path: Path, data: Path) -> None:
    extra = {"name": "more", "query_dataset_dir": str(data / "query")}
    extra["test_dataset_dir"] = str(data / "bounding_box_test")
    values = {"evaluate__checkpoint": str(checkpoint), "dataset__extra_tests": [extra]}
    values["evaluate__output_sampled_matches_plot"] = str(tmp_path / "m.png")
    without = run_evaluate(spec(**values))
    found = run_evaluate(spec(**values, evaluate__details=True))
    assert found.rows() == without.rows()
    metrics = json.loads((tmp_path / "results/evaluate/metrics.json").read_text())
    assert metrics == found.as_dict() and metrics["plain"]["per_identity"] != metrics["re_ranked"]["per_identity"]
    for kind in ("plain", "re_ranked"):
        whole = metrics[kind]
        details = {name: whole[name] for name in ("per_camera_pair", "per_identity")}
        assert whole == without.as_dict()[kind] | details
        assert metrics["extra_tests"]["more"][kind] == whole
        queries = [row["queries"] for row in whole["per_identity"]]
        mean = np.average([row["mAP"] for row in whole["per_identity"]], weights=queries)
        assert sum(queries) == whole["queries"] and mean == pytest.approx(whole["mAP"])
        cameras = [(row["query_camera"], row["gallery_camera"]) for row in whole["per_camera_pair"]]
        assert len(set(cameras)) == len(cameras) > 1 and all(own != other for own, other in cameras)
