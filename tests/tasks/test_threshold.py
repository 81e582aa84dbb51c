import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import yaml

from reid_tune import cli
from reid_tune.errors import InputError
from reid_tune.evaluation.features import write_features
from reid_tune.evaluation.openset import open_set
from reid_tune.evaluation.thresholds import PairDistances
from reid_tune.tasks.common.calibration import read_threshold
from reid_tune.tasks.threshold import run_threshold

from ..helpers.evaluation_reference import made_up

FEATURES = made_up(queries=220, gallery=200, identities=30)


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the features of many images and of few."""
    monkeypatch.chdir(tmp_path)
    write_features("f.npz", FEATURES)
    write_features("few.npz", made_up(queries=6, gallery=9, identities=3))
    return tmp_path


def test_the_file_holds_rates_open_set_and_what_calibrated_it() -> None:
    run_threshold(Path("f.npz"), 0.01, far=0.02, output=Path("new/t.json"))
    found = json.loads(Path("new/t.json").read_text())
    wanted = PairDistances.of(FEATURES).threshold(0.01).as_dict()
    assert list(found) == [*wanted, "dimension", "open_set", "data", "warnings"] and found["dimension"] == 12
    assert {name: found[name] for name in wanted} == wanted
    assert found["open_set"] == open_set(FEATURES, 0.02).as_dict() and found["open_set"]["rows"]
    assert found["data"] == {
        "features": "f.npz",
        "sha256": hashlib.sha256(Path("f.npz").read_bytes()).hexdigest(),
        "queries": 220,
        "gallery": 200,
        "identities": 30,
    }
    assert found["warnings"] == []


def test_what_is_written_can_be_exported() -> None:
    found = run_threshold(Path("f.npz"), 0.01, output=Path("t.json")).threshold
    assert not isinstance(found, InputError)
    metadata = read_threshold(Path("t.json"), 12)
    assert float(metadata["threshold_squared_distance"]) == found.squared_distance
    assert float(metadata["threshold_fmr"]) == found.fmr <= 0.01


def test_the_picture_shows_the_threshold() -> None:
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        found = run_threshold(Path("f.npz"), 0.01, picture=Path("new/d.svg")).threshold
    assert not isinstance(found, InputError)
    assert f">threshold {found.squared_distance:.5g} (cosine" in Path("new/d.svg").read_text()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["reid-tune", "threshold", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command_in_all_formats(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("f.npz", "--fmr", "0.01", "--far", "0.02")
    assert call(monkeypatch, *arguments, "--format", "json", "--output", "t.json", "--picture", "d.png") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found == json.loads(Path("t.json").read_text())
    assert err.splitlines()[1:] == ["picture: d.png", "threshold: t.json"]
    assert call(monkeypatch, *arguments, "--format", "yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out) == found
    assert call(monkeypatch, *arguments) == 0
    table = capsys.readouterr().out
    assert f"{found['squared_distance']:.5g}" in table and f"{100 * found['fnmr']:.3g}" in table
    assert "10 enrolled" in table and f"{100 * found['open_set']['rows'][0]['DIR']:.1f} (" in table


def test_few_queries_have_a_threshold_and_no_open_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "few.npz", "--fmr", "0.2") == 0
    out, err = capsys.readouterr()
    assert "threshold" in out and "enrolled" not in out
    assert err.splitlines()[1].startswith("no open-set identification: 3 gallery identities and 6 queries leave no")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": "gone.npz"}, "the feature file gone.npz does not exist"),
        ({"path": "few.npz"}, "a false-match rate of 0.01 cannot be shown with .* pairs of different identities"),
        ({"fmr": 0.0}, "a false-match rate of 0 cannot be used"),
        ({"far": 1.0}, "a false alarm rate of 1 cannot be used"),
        ({"output": "f.npz"}, "--output = 'f.npz': the name must end in .json"),
        ({"output": "."}, "--output = '.' is a folder"),
        ({"picture": "d.jpg"}, "--picture = 'd.jpg': the name must end in .png, .pdf or .svg"),
        ({"picture": "f.npz/d.png"}, "cannot make the folder"),
    ],
)
def test_what_gives_no_threshold_writes_nothing(desk: Path, values: dict[str, Any], message: str) -> None:
    before = {path: path.read_bytes() for path in desk.iterdir()}
    given: dict[str, Any] = {"path": "f.npz", "fmr": 0.01, "far": 0.01, "picture": "d.png", "output": "t.json"} | values
    paths = {name: Path(given.pop(name)) for name in ("path", "picture", "output")}
    with pytest.raises(InputError, match=message) as caught:
        run_threshold(**given, **paths)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in desk.iterdir()} == before


def test_a_folder_that_cannot_be_written(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written"):
        run_threshold(Path("f.npz"), 0.01, picture=Path("d.png"), output=Path("t.json"))
    assert not (desk / "d.png").exists() and not (desk / "t.json").exists()


@pytest.mark.parametrize(("squared_distance", "cosine"), [(-7.0, 4.5), (4.5, -1.25), (0.2868, 0.13)])
def test_a_threshold_that_no_features_have_is_refused(tmp_path: Path, squared_distance: float, cosine: float) -> None:
    content = {"squared_distance": squared_distance, "cosine": cosine, "fnmr": 0.1, "fmr": {"reached": 0.1}}
    file = tmp_path / "t.json"
    file.write_text(json.dumps(content | {"dimension": 8, "data": {}}))
    with pytest.raises(InputError, match="a squared distance and a cosine that contradict each other"):
        read_threshold(file, 8)
    file.write_text(json.dumps(content | {"dimension": 8, "data": {}, "squared_distance": 0.5, "cosine": 0.75}))
    assert read_threshold(file, 8)["threshold_cosine"] == "0.75"
