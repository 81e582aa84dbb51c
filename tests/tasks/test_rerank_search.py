"""The search for a setting of the re-ranking, as a command."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from reid_tune.evaluation.features import write_features
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import score

from ..helpers.evaluation_reference import made_up

Run = Callable[..., tuple[int, str, str]]

FEATURES = made_up(queries=80, gallery=300, identities=25, noise=1.0)


@pytest.fixture
def run(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `reid-tune rerank-search` in a folder with features: its status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    write_features("f.npz", FEATURES)
    return partial(command, "rerank-search")


def test_the_best_setting_is_the_one_that_scores_best_alone(run: Run) -> None:
    words = ("f.npz", "--k1", "20,5", "--k2", "1,4", "--lambda", "0.3,0.8", "--metric", "Rank-1")
    status, out, err = run(*words, "--format", "json", "--picture", "pictures/l.png")
    found = json.loads(out)
    alone = {
        (k1, k2, weight): score(FEATURES, ReRanking(k1, k2, weight)).as_dict()
        for k1 in (5, 20)
        for k2 in (1, 4)
        for weight in (0.3, 0.8)
    }
    assert {(row["k1"], row["k2"], row["lambda_value"]): row["mAP"] for row in found["settings"]} == {
        setting: metrics["mAP"] for setting, metrics in alone.items()
    }
    assert found["best"]["Rank-1"] == max(metrics["Rank-1"] for metrics in alone.values())
    assert found["plain"] == score(FEATURES).as_dict()
    assert found["gain"] == pytest.approx(found["best"]["Rank-1"] - found["plain"]["Rank-1"])
    assert found["gain_interval"][0] <= found["gain"] <= found["gain_interval"][1]
    assert status == 0 and Path("pictures/l.png").read_bytes().startswith(b"\x89PNG")
    assert "best of 8: " in err and "check it on others" in err and "picture: pictures/l.png" in err


def test_the_table_has_the_plain_score_and_the_best_settings_first(run: Run) -> None:
    _, out, _ = run("f.npz")
    rows = [line.split("│")[1:3] for line in out.splitlines() if line.startswith("│")]
    names, values = [name.strip() for name, _ in rows], [float(value) for _, value in rows]
    assert names[0] == "plain" and len(names) == 11 and len(set(names)) == 11
    assert values[1:] == sorted(values[1:], reverse=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["f.npz", "--k1", "20,x"], "--k1 '20,x' is not a list of numbers: give one such as 10,20,30."),
        (["f.npz", "--k2", "0"], "re-ranking k2 is 0; give a whole number from 1."),
        (["f.npz", "--lambda", "0.3,1.1"], "re-ranking lambda_value is 1.1; give a number from 0 to 1."),
        (["f.npz", "--lambda", "nan"], "re-ranking lambda_value is nan; give a number from 0 to 1."),
        (["f.npz", "--metric", "map"], "--metric map is not one of mAP, mINP, Rank-1."),
        (["f.npz", "--picture", "l.gif"], "--picture = 'l.gif': the name must end in .png, .pdf or .svg."),
        (["f.npz", "--device", "cuda"], "--device cuda: this machine has no GPU; omit the option."),
        (["f.npz", "--device", "tpu"], "--device tpu is not one of auto, cpu, cuda and cuda:N."),
        (["no.npz"], "the feature file no.npz does not exist; give another path."),
    ],
)
def test_bad_input_is_one_sentence(run: Run, words: list[str], said: str) -> None:
    status, out, err = run(*words)
    assert (status, out, err) == (2, "", f"reid-tune: {said}\n")
    assert [path.name for path in Path().iterdir()] == ["f.npz"]


def test_k1_beyond_the_set_is_clipped(run: Run) -> None:
    features = made_up(queries=20, gallery=60, identities=10, noise=1.0)
    write_features("f.npz", features)
    status, out, _ = run("f.npz", "--k1", "100000", "--k2", "3", "--lambda", "0.3", "--format", "json")
    np.testing.assert_allclose(json.loads(out)["best"]["mAP"], score(features, ReRanking(79, 3)).mAP)
    assert status == 0


def test_the_edges_of_the_grid_are_named(run: Run) -> None:
    """With lambda 1 re-ranking changes nothing, so that every smaller one here is better, the smallest most."""
    _, out, err = run("f.npz", "--k1", "20", "--k2", "6", "--lambda", "0.3,0.9,1", "--format", "json")
    settings = json.loads(out)["settings"]
    assert settings[0]["mAP"] > settings[1]["mAP"] > settings[2]["mAP"] == json.loads(out)["plain"]["mAP"]
    assert "the best setting is at the edge of --lambda: extend the grid there.\n" in err and "not shown" not in err
    _, _, err = run("f.npz", "--k1", "20", "--k2", "6", "--lambda", "1")
    assert "+0.0 mAP (+0.0 .. +0.0) against plain distances, not a significant difference" in err and "edge" not in err
    _, _, err = run("f.npz")
    assert "26 more settings are in --format json.\n" in err
