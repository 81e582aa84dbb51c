"""Comparisons of features against single scores and a bootstrap by hand."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from reid_tune import cli
from reid_tune.errors import InputError
from reid_tune.evaluation.features import FeatureSet, write_features
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import score
from reid_tune.tasks.compare import run_compare

from ..helpers.evaluation_reference import made_up

METRICS = ["mAP", "mINP", "Rank-1", "Rank-5", "Rank-10"]


def noisy(features: FeatureSet, noise: float, dimension: int = 12, seed: int = 0) -> FeatureSet:
    """The same images through a worse model."""
    random = np.random.default_rng(seed)
    rows = (features.query_features, features.gallery_features)
    query, gallery = ((row[:, :dimension] + noise * random.standard_normal((len(row), dimension))) for row in rows)
    return dataclasses.replace(features, query_features=np.float32(query), gallery_features=np.float32(gallery))


BASE = made_up(queries=120, gallery=300, identities=30, noise=1.0)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with features of a good, an equal and a bad model."""
    monkeypatch.chdir(tmp_path)
    for name, features in (("good", BASE), ("equal", noisy(BASE, 0.05)), ("bad", noisy(BASE, 2.0, dimension=7))):
        write_features(tmp_path / f"{name}.npz", features)
    return tmp_path


def slow_interval(values: np.ndarray, identities: np.ndarray) -> np.ndarray:
    """The interval of a mean: people drawn with replacement, each with all queries."""
    people = [values[identities == identity] for identity in np.unique(identities)]
    random = np.random.default_rng(7)
    means = [np.concatenate([people[i] for i in random.integers(len(people), size=len(people))]) for _ in range(2000)]
    return np.percentile([each.mean() for each in means], [2.5, 97.5])


@pytest.mark.parametrize("reranking", [None, "6,2,0.3"])
def test_differences_are_those_of_single_scores_with_the_interval_over_people(desk: Path, reranking: Any) -> None:
    found = run_compare([Path("bad.npz"), Path("good.npz")], reranking, None)
    setting = ReRanking(6, 2, 0.3) if reranking else None
    bad, good = (score(features, setting) for features in (noisy(BASE, 2.0, dimension=7), BASE))
    content = found.as_dict()
    assert content["baseline"] == "bad.npz"
    assert content["files"] == {"bad.npz": bad.report(), "good.npz": good.report()}
    (differences,) = content["differences"].values()
    assert list(content["differences"]) == ["good.npz"] and list(differences) == METRICS
    for metric, difference in differences.items():
        assert difference["difference"] == pytest.approx(good.as_dict()[metric] - bad.as_dict()[metric])
    precision = differences["mAP"]
    wanted = slow_interval(good.average_precision - bad.average_precision, good.query_ids)
    assert precision["interval"] == pytest.approx(list(wanted), abs=0.01) and precision["differs"] is True
    first = differences["Rank-1"]["interval"]
    wanted = slow_interval((good.first_hit < 1) * 1.0 - (bad.first_hit < 1), good.query_ids)
    assert first == pytest.approx(list(wanted), abs=0.02)


def test_verdicts_say_whether_the_interval_excludes_zero(desk: Path) -> None:
    files = [Path("good.npz"), Path("bad.npz"), Path("equal.npz")]
    worse, same = run_compare(files, None, None).verdicts()
    assert worse.startswith("bad.npz is worse than good.npz: mAP -") and worse.endswith("the interval excludes 0")
    assert same.startswith("equal.npz does not differ significantly from good.npz: mAP ")
    assert same.endswith("; the interval contains 0")
    found = run_compare(files[1::-1], None, None)
    (better,) = found.verdicts()
    difference = found.differences["good.npz"]["mAP"]
    numbers = [f"{100 * value:+.1f}" for value in dataclasses.astuple(difference)]
    assert better == "good.npz is better than bad.npz: mAP {} ({} .. {}); the interval excludes 0".format(*numbers)


def test_a_copy_does_not_differ(desk: Path) -> None:
    write_features(desk / "copy.npz", BASE)
    found = run_compare([Path("good.npz"), Path("copy.npz")], "6,2,0.3", None).as_dict()
    for difference in found["differences"]["copy.npz"].values():
        assert difference == {"difference": 0.0, "interval": [0.0, 0.0], "differs": False}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["good.npz", "bad.npz"], ["good.npz", "bad.npz"]),
        (["a/good.npz", "b/good.npz", "bad.npz"], ["a/good.npz", "b/good.npz", "bad.npz"]),
        (["a/x/good.npz", "b/x/good.npz", "b/y/good.npz"], ["a/x/good.npz", "b/x/good.npz", "y/good.npz"]),
        (["good.npz", "desk/good.npz"], ["here/good.npz", "desk/good.npz"]),
    ],
)
def test_rows_have_as_much_of_the_path_as_tells_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], names: list[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_features(path, made_up())
    found = run_compare([Path(path) for path in paths], None, None)
    assert list(found.scores) == names
    assert list(found.rows()) == names + [f"{name} - {names[0]}" for name in names[1:]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_ids": 3}, r"query_ids is \d+ in row 3, but in good.npz it is \d+"),
        ({"query_cameras": 0}, "query_cameras is .* in row 0, but in good.npz"),
        ({"gallery_ids": 7, "gallery_cameras": 2}, "gallery_ids is .* in row 7, but in good.npz"),
        ({"gallery_cameras": 299}, "gallery_cameras is .* in row 299, but in good.npz"),
    ],
)
def test_files_of_other_images_are_refused(desk: Path, changes: dict[str, int], message: str) -> None:
    arrays = {name: getattr(BASE, name).copy() for name in changes}
    for name, row in changes.items():
        arrays[name][row] += 1
    write_features("other.npz", dataclasses.replace(BASE, **arrays))
    with pytest.raises(InputError, match=f"^other.npz: {message}.*the same images in the same order"):
        run_compare([Path("good.npz"), Path("bad.npz"), Path("other.npz")], None, Path("new/cmc.png"))
    assert not Path("new").exists()


def test_files_of_unlike_length_are_refused(desk: Path) -> None:
    write_features("short.npz", made_up(queries=119, gallery=300, identities=30))
    with pytest.raises(InputError, match="^short.npz: query_ids has 119 rows, but in good.npz it has 120; compare"):
        run_compare([Path("good.npz"), Path("short.npz")], None, None)


@pytest.mark.parametrize(
    ("paths", "reranking", "cmc", "message"),
    [
        (["good.npz"], None, None, "one feature file only"),
        (["good.npz", "bad.npz", "./good.npz"], None, None, "good.npz is given twice"),
        (["good.npz", "gone.npz"], None, None, "the feature file gone.npz does not exist"),
        (["good.npz", "bad.npz"], "6,2", None, "'6,2' is not k1,k2,lambda"),
        (["good.npz", "bad.npz"], None, "new/cmc.bmp", "--cmc = 'new/cmc.bmp': the name must end in .png"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    desk: Path, paths: list[str], reranking: str | None, cmc: str | None, message: str
) -> None:
    before = sorted(os.listdir())
    with pytest.raises(InputError, match=message):
        run_compare([Path(path) for path in paths], reranking, Path(cmc) if cmc else None)
    assert sorted(os.listdir()) == before


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    monkeypatch.setattr(sys, "argv", ["reid-tune", "compare", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    out, err = capsys.readouterr()
    return out, err


def test_the_command_prints_scores_differences_and_verdicts(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["good.npz", "bad.npz", "equal.npz"]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        out, err = command(monkeypatch, capsys, *files, "--cmc", "new/cmc.svg", "--format", "json")
    found = run_compare([Path(file) for file in files], None, None)
    assert json.loads(out) == found.as_dict()
    assert err.splitlines()[1:] == [*found.verdicts(), "picture: new/cmc.svg"]
    picture = Path("new/cmc.svg").read_text()
    for name, each in found.scores.items():
        assert f">{name} ({100 * each.cmc(1)[0]:.1f} % at rank 1)</text>" in picture
    out, err = command(monkeypatch, capsys, *files)
    (row,) = [line for line in out.splitlines() if "bad.npz - good.npz" in line]
    assert all(str(difference) in row for difference in found.differences["bad.npz"].values())
    assert "new/cmc.svg" not in err
