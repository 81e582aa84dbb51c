"""References to models: paths, registered models, runs of a sweep."""

from pathlib import Path

import pytest

from reid_tune.checkpoints.filenames import BEST, LATEST
from reid_tune.errors import InputError
from reid_tune.tasks.common.model_references import CHECKPOINT, ONNX, model_name, resolve_model, resolve_models


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sweeps; of a run the newest attempt with a checkpoint counts, and 10 is newer than 9."""
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        touch(tmp_path / "runs" / name / "events.jsonl")
    for attempt in ("refit/winner/attempt-9", "refit/winner/attempt-10", "trials/0007/attempt-1"):
        touch(tmp_path / "runs/a" / attempt / LATEST)
    (tmp_path / "runs/a/trials/0007/attempt-2").mkdir()
    (tmp_path / "runs/no-sweep").mkdir()
    return Path("runs")


def test_a_path_is_itself(tmp_path: Path) -> None:
    path = touch(tmp_path / "x.pth")
    assert resolve_model(str(path), CHECKPOINT) == path
    assert resolve_model("x.pth", ONNX) == Path("x.pth")


@pytest.mark.parametrize(
    ("reference", "wanted", "found"),
    [
        ("sweep:a", CHECKPOINT, "a/refit/winner/attempt-10"),
        ("sweep:a", ONNX, "a/refit/winner/attempt-10"),
        ("sweep:a/7", CHECKPOINT, "a/trials/0007/attempt-1"),
        ("sweep:a/0007", ONNX, "a/trials/0007/attempt-1"),
    ],
)
def test_runs_of_a_sweep(runs: Path, reference: str, wanted: str, found: str) -> None:
    assert resolve_model(reference, wanted) == runs / found / LATEST


def test_the_winners_onnx_file_is_taken_where_one_is_wanted(runs: Path) -> None:
    exported = touch(runs / "a/export/winner.onnx")
    assert resolve_model("sweep:a", ONNX) == exported
    assert resolve_model("sweep:a", CHECKPOINT) == runs / "a/refit/winner/attempt-10" / LATEST
    assert resolve_model("sweep:a/7", ONNX) == runs / "a/trials/0007/attempt-1" / LATEST


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("gone.pth", "there is no checkpoint gone.pth"),
        ("runs", "there is no checkpoint runs"),
        ("sweep:c", "there is no sweep 'c' in .*runs; sweeps there: a, b"),
        ("sweep:no-sweep", "there is no sweep 'no-sweep' .*sweeps there: a, b"),
        ("sweep:b", "sweep:b has no checkpoint"),
        ("sweep:a/8", "sweep:a/8 has no checkpoint"),
        ("sweep:", "does not name a model: write sweep:NAME or sweep:NAME/7"),
        ("sweep:../a", "does not name a model"),
        ("sweep:a/b", "does not name a model"),
        ("sweep:a/7/8", "does not name a model"),
        ("sweep:a/-1", "does not name a model"),
    ],
)
def test_what_names_nothing(reference: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_model(reference, CHECKPOINT)


def test_without_any_sweep_there_is_none_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match="sweeps there: none"):
        resolve_model("sweep:a", CHECKPOINT)


def test_a_registered_version_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def registered(text: str, uri: str) -> Path:
        asked.append(text)
        return tmp_path if text.startswith("models:") else tmp_path / "file.pth"

    monkeypatch.setattr("reid_tune.tracking.registry.resolve.resolve", registered)
    with pytest.raises(InputError, match="models:/m@champion has no model.onnx; it has "):
        resolve_model("models:/m@champion", ONNX)
    asked.clear()
    for name in ("model.onnx", "checkpoint.pth"):
        touch(tmp_path / name)
    assert resolve_model("models:/m@champion", ONNX) == tmp_path / "model.onnx"
    assert resolve_model("models:/m/3", CHECKPOINT) == tmp_path / "checkpoint.pth"
    assert resolve_model("runs:/1/file.pth", CHECKPOINT) == tmp_path / "file.pth"
    assert asked == ["models:/m@champion", "models:/m/3", "runs:/1/file.pth"]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (
            ["model_epoch_999.pth", "model_epoch_1000.pth", "model_epoch_099_step_00010.pth", "a.pth", "b.onnx"],
            ["model_epoch_099_step_00010.pth", "model_epoch_999.pth", "model_epoch_1000.pth"],
        ),
        (
            ["b10.pth", "b9.pth", "a.onnx", "notes.txt", ".hidden.pth", "sub/model_epoch_000.pth"],
            ["a.onnx", "b9.pth", "b10.pth"],
        ),
    ],
)
def test_all_checkpoints_of_a_folder_in_order_without_copies(
    tmp_path: Path, files: list[str], wanted: list[str]
) -> None:
    for name in (*files, LATEST, BEST):
        touch(tmp_path / "run" / name)
    assert resolve_models(str(tmp_path / "run"), ONNX) == [tmp_path / "run" / name for name in wanted]


def test_other_references_name_one_file(runs: Path) -> None:
    assert resolve_models("sweep:a/7", CHECKPOINT) == [runs / "a/trials/0007/attempt-1" / LATEST]
    with pytest.raises(InputError, match="there is no checkpoint gone.pth"):
        resolve_models("gone.pth", ONNX)


def test_a_folder_of_copies_alone_has_no_checkpoint(tmp_path: Path) -> None:
    touch(tmp_path / "run" / LATEST)
    with pytest.raises(InputError, match=r"the folder .*run has no checkpoint: it should hold model_epoch_\*\.pth"):
        resolve_models(str(tmp_path / "run"), ONNX)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("models:/reid-market@champion", "reid-market"),
        ("models:/reid-market/3", "reid-market"),
        ("sweep:week-1", "week-1"),
        ("sweep:week-1/7", "week-1"),
        ("runs:/0123/model", "people"),
        ("folder/people.onnx", "people"),
    ],
)
def test_a_model_has_the_name_of_its_registration_sweep_or_file(reference: str, name: str) -> None:
    assert model_name(reference, Path("folder/people.onnx")) == name
