"""The commands as a user meets them: exit status, stdout, and one sentence on stderr."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml

from reid_tune import __version__, cli
from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, KEY_VARIABLE
from reid_tune.demo import draw_demo_data
from reid_tune.errors import InfrastructureError, RunFailedError
from reid_tune.journal.event_log import EventLog
from reid_tune.journal.events import EpochReported, RunEnded, RunSuggested, StageDone

from ..helpers.events import sweep_header

COMMANDS = ["train", "evaluate", "inference", "export", "score", "demo-data", "check-data", "convert", "cache", "spec"]
COMMANDS += ["split", "sweep", "reproduce", "report", "sweeps", "logs", "ui", "version"]


@dataclass
class Result:
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("demo") / "data"
    draw_demo_data(folder, identities=6, images=4)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["reid-tune", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as end:
            return Result(int(end.code or 0), *capsys.readouterr())
        raise AssertionError("a command ends with a status")

    return call


@pytest.fixture
def spec(tmp_path: Path, data: Path) -> Path:
    tree = {
        "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 24},
        "dataset": {
            "train_dataset_dir": str(data / "bounding_box_train"),
            "test_dataset_dir": str(data / "bounding_box_test"),
            "query_dataset_dir": str(data / "query"),
            "batch_size": 8,
        },
        "train": {"num_epochs": 1, "optim": {"warmup_iters": 0}},
    }
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused; its sentence. Nothing may be written."""

    def call(*arguments: object) -> str:
        before = files(tmp_path)
        result = run(*arguments)
        assert (result.status, result.out) == (2, ""), result
        # What a training says about its spec and its data before it begins.
        progress = ("no effect: ", "left out: ", "training: ", "validation: ", "train: ", "evaluate: ")
        lines = [line for line in result.err.splitlines() if not line.startswith(progress)]
        assert lines[0].startswith("reid-tune: ") and len(lines) == 1, result.err
        assert "Traceback" not in result.err
        assert files(tmp_path) == before
        return lines[0].removeprefix("reid-tune: ")

    return call


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_version(run: Run) -> None:
    assert run("version") == Result(0, f"{__version__}\n", "")


@pytest.mark.parametrize("command", ["", "spec validate", "spec show", *COMMANDS])
def test_help(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.status == 0 and result.err == ""
    assert "Usage: " in result.out and f"reid-tune {command}".strip() in result.out


def test_help_imports_nothing_heavy() -> None:
    heavy = {"torch", "ray", "mlflow", "optuna", "timm", "numpy", "matplotlib", "onnx", "pydantic", "yaml"}
    code = (
        "import sys; sys.argv = ['reid-tune', '--help']\n"
        "from reid_tune.cli import main\n"
        "try: main()\n"
        f"except SystemExit: print('loaded', sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_the_module_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reid_tune", "spec", "validate", "gone.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "reid-tune: cannot read gone.yaml: No such file or directory.\n"


def test_train_and_evaluate(run: Run, spec: Path, tmp_path: Path) -> None:
    trained = run("train", "-e", spec)
    assert trained.status == 0 and "epoch 1/1" in trained.err
    checkpoint = Path(trained.out.strip())
    assert checkpoint == Path("results/train/reid_model_latest.pth") and checkpoint.is_file()
    arguments = ("evaluate", "-e", spec, f"evaluate.checkpoint={checkpoint}")
    evaluated = run(*arguments, "--format", "json")
    metrics = json.loads(evaluated.out)
    assert metrics == json.loads(Path("results/evaluate/metrics.json").read_text())
    assert list(metrics) == ["plain", "re_ranked", "threshold"]
    table = run(*arguments).out
    assert f"{100 * metrics['plain']['mAP']:.1f}" in table and "re-ranked" in table


@pytest.mark.parametrize("content", [None, {}, {"notes.txt": b""}, {"person.jpg": b""}])
def test_train_without_usable_data(refused: Callable[..., str], spec: Path, content: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_bytes(text)
    message = refused("train", "-e", spec, f"dataset.train_dataset_dir={folder}")
    assert str(folder) in message
    expected = {None: "there is no folder", (): "it is empty"}.get(None if content is None else tuple(content))
    assert (expected or "IDENTITY_cCAMERA") in message


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff no picture", None])
def test_train_with_an_unreadable_image(
    refused: Callable[..., str], spec: Path, data: Path, tmp_path: Path, content: bytes | None
) -> None:
    folder = shutil.copytree(data / "bounding_box_train", tmp_path / "images")
    broken = sorted(folder.iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:600] if content is None else content)
    message = refused("train", "-e", spec, f"dataset.train_dataset_dir={folder}")
    assert f"cannot read the image {broken}" in message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train.num_epoch=3"], ["unknown key train.num_epoch", "did you mean train.num_epochs?"]),
        (["train.optim.base_lr=-1"], ["train.optim.base_lr = -1", "greater than 0"]),
        (["model.neck=bn"], ["model.neck = 'bn'", "'bnneck'"]),
        (["train.num_epochs"], ["'train.num_epochs' is not an override: write key=value"]),
        (["train.optim.lr_steps=[1, 2"], ["train.optim.lr_steps", "not valid YAML"]),
        (["model.backbone=resnet_5000"], ["model.backbone = 'resnet_5000' is not a timm model"]),
    ],
)
def test_train_with_a_bad_override(
    refused: Callable[..., str], spec: Path, arguments: list[str], parts: list[str]
) -> None:
    message = refused("train", "-e", spec, *arguments)
    for part in parts:
        assert part in message


def test_specs_that_cannot_be_read(refused: Callable[..., str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    assert "cannot read gone.yaml" in refused("train", "-e", "gone.yaml")
    broken.write_text("model: [1, 2")
    assert "broken.yaml, line 1, column 13: not valid YAML" in refused("spec", "validate", broken)
    broken.write_text("- a list")
    assert "does not contain a mapping" in refused("spec", "validate", broken)
    broken.write_bytes(b"\xff\xfe\x00")
    assert "it is not a text file" in refused("spec", "validate", broken)


def test_a_results_folder_with_a_file_in_the_way(refused: Callable[..., str], spec: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    message = refused("train", "-e", spec)
    assert "cannot make the folder results/train" in message


def test_spec_validate(run: Run, spec: Path) -> None:
    assert run("spec", "validate", spec).out == run("spec", "validate", "-e", spec).out == f"{spec}: valid\n"
    result = run("spec", "validate", spec, "train.optim.warmup_iters=5")
    assert (result.status, result.out) == (0, f"{spec}: valid\n")
    assert "warning: train.optim.warmup_iters = 5 is not below train.num_epochs = 1" in result.err


@pytest.mark.parametrize(
    ("arguments", "optimizer"),
    [([], "Adam"), (["--defaults", "resnet50"], "Adam"), (["--defaults", "swin"], "SGD")],
)
def test_spec_show(run: Run, tmp_path: Path, arguments: list[str], optimizer: str) -> None:
    result = run("spec", "show", *arguments)
    assert yaml.safe_load(result.out)["train"]["optim"]["name"] == optimizer
    (tmp_path / "shown.yaml").write_text(result.out)
    assert run("spec", "validate", "shown.yaml").status == 0


def test_a_key_on_the_command_line_is_moved_to_the_environment_with_a_warning(
    run: Run, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "another one")
    result = run("spec", "validate", spec, "encryption_key=hush")
    assert (result.status, result.out) == (0, f"{spec}: valid\n")
    assert result.err.startswith("warning: other users of this machine can read encryption_key=... in the list of")
    assert "hush" not in " ".join(sys.argv) and os.environ[KEY_VARIABLE] == "hush"


def test_a_key_on_the_command_line_is_not_shown_to_a_cluster(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    for address in (["--address", "auto"], ["--address=auto"]):
        message = refused("sweep", "sweep.yaml", "encryption_key=hush", *address)
        assert KEY_FILE_VARIABLE in message and "hush" not in message
    assert KEY_VARIABLE not in os.environ


@pytest.mark.parametrize("value", ["${oc.env:CI_KEY}", "${results_dir}", "a${oc.env:CI_KEY}b", "hush${", "\\${hush"])
def test_a_key_on_the_command_line_is_not_a_reference(
    refused: Callable[..., str], spec: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("CI_KEY", "hush")
    message = refused("spec", "validate", spec, f"encryption_key={value}", "--allow-env", "CI_KEY")
    assert "a reference (${...}), which is resolved only in a spec" in message and "hush" not in message
    assert KEY_VARIABLE not in os.environ


@pytest.mark.parametrize("value", ["", " ", "???", "~", "null", "Null", "NULL"])
def test_a_key_on_the_command_line_may_be_none(
    run: Run, spec: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    result = run("spec", "validate", spec, f"encryption_key={value}")
    assert (result.status, result.out) == (0, f"{spec}: valid\n") and "other users" not in result.err
    assert KEY_VARIABLE not in os.environ


def write_features(path: Path, **changes: Any) -> Path:
    random = np.random.default_rng(0)
    ids = np.arange(30) % 6
    arrays: dict[str, Any] = {}
    for side, rows in (("query", slice(0, 8)), ("gallery", slice(8, 30))):
        arrays[f"{side}_features"] = random.normal(size=(30, 4))[rows]
        arrays[f"{side}_ids"], arrays[f"{side}_cameras"] = ids[rows], (np.arange(30) % 4)[rows]
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_score_in_all_formats(run: Run, tmp_path: Path) -> None:
    path = write_features(tmp_path / "f.npz")
    content = json.loads(run("score", path, "--format", "json").out)
    assert list(content) == [
        *("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery"),
        *("intervals", "protocol", "embeddings", "warnings", "junk"),
    ]
    assert content["warnings"] == [] and content["embeddings"]["distinct_gallery"] == 22
    assert 0 < content["mAP"] < 1 and content["gallery"] == 22
    assert yaml.safe_load(run("score", path, "--format", "yaml").out) == content
    table = run("score", path).out
    assert "mAP %" in table and f"{100 * content['mAP']:.1f}" in table and "plain" in table
    re_ranked = json.loads(run("score", path, "--re-ranking", "6,2,0.3", "--format", "json").out)
    assert re_ranked["mAP"] != content["mAP"]
    assert "re-ranked" in run("score", path, "--re-ranking", "6,2,0.3").out


def test_bad_features(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    assert "the feature file gone.npz does not exist" in refused("score", "gone.npz")
    write_features(path, gallery_ids=None, query_cameras=None)
    assert "lacks query_cameras, gallery_ids" in refused("score", path)
    marker = tmp_path / "ran"
    write_features(path, query_ids=np.array([Payload(f"touch {marker}")] * 8, dtype=object))
    assert "query_ids holds Python objects, which are never loaded" in refused("score", path)
    path.write_text("text")
    assert "is not an .npz file" in refused("score", path)
    write_features(path)
    assert "1,2" in refused("score", path, "--re-ranking", "1,2")
    assert not marker.exists()


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_bad_checkpoints(refused: Callable[..., str], spec: Path, tmp_path: Path) -> None:
    path, marker = tmp_path / "model.pth", tmp_path / "ran"
    contents: list[tuple[Callable[[], Any], str]] = [
        (lambda: path.write_text("text"), "is not a checkpoint"),
        (lambda: torch.save({"format": Payload(f"touch {marker}")}, path), "is rejected: it contains code"),
        (lambda: path.write_bytes(pickle.dumps(Payload(f"touch {marker}"))), "is not a checkpoint"),
        (lambda: torch.save({"state_dict": {}}, path), "is not a checkpoint of reid-tune"),
    ]
    for write, part in contents:
        write()
        for arguments in (["export", path], ["evaluate", "-e", spec, f"evaluate.checkpoint={path}"]):
            message = refused(*arguments)
            assert str(path) in message and part in message
    assert not marker.exists()
    path.write_text("text")
    onnx = path.rename(tmp_path / "model.onnx")
    assert "is not an ONNX file" in refused("evaluate", "-e", spec, f"evaluate.checkpoint={onnx}")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["export", "gone.pth", "overwrite"], "'overwrite' is not an override"),
        (["export", "gone.pth", "export.onxx_file=x"], "did you mean export.onnx_file?"),
        (["export", "sweep:x"], "there is no sweep 'x'"),
        (["evaluate", "-e", "spec.yaml"], "evaluate.checkpoint is not set"),
        (["evaluate", "-e", "spec.yaml", "evaluate.checkpoint=models:/m@a"], "there is no MLflow store"),
        (["report", "x"], "there is no sweep 'x'"),
    ],
)
def test_references_to_nothing(refused: Callable[..., str], spec: Path, arguments: list[str], part: str) -> None:
    assert part in refused(*arguments)


def test_demo_data(run: Run, refused: Callable[..., str], tmp_path: Path) -> None:
    result = run("demo-data", "images", "--identities", "2", "--images", "2")
    assert result.status == 0 and str(tmp_path / "images") in result.out
    assert sorted(path.name for path in Path("images").iterdir()) == [
        "bounding_box_test",
        "bounding_box_train",
        "query",
    ]
    assert "is not an empty folder" in refused("demo-data", "images")
    assert "identities is 1" in refused("demo-data", "other", "--identities", "1")


def test_split(run: Run, refused: Callable[..., str], spec: Path) -> None:
    message = refused("split", "-e", spec, "lists", "dataset.validation=none")
    assert "= 'none' holds no training identities out: set it to holdout" in message
    half = ("dataset.validation_fraction=0.5",)
    result = run("split", "-e", spec, "lists", *half, "--format", "json")
    assert result.status == 0
    for name, counts in json.loads(result.out).items():
        assert len(Path("lists", f"{name}.txt").read_text().splitlines()) == counts["images"] > 0
    assert "lists is not an empty folder" in refused("split", "-e", spec, "lists", *half)
    Path("lists", "query.txt").write_text("query/0001_c1.jpg\n")
    message = refused("train", "-e", spec, "dataset.validation=lists")
    assert message.startswith("lists/query.txt line 1: there is no 'query/0001_c1.jpg' in the training folders")


@pytest.mark.parametrize(
    ("changes", "arguments", "part"),
    [
        ({"space": {"train.optim.bas_lr": {"int": [1, 2]}}}, [], "did you mean train.optim.base_lr?"),
        ({"space": {"train.optim.base_lr": {"uniform": [2, 1]}}}, [], "low must be below high"),
        ({"name": "../x"}, [], "no path"),
        ({}, ["sweep.name=a/b"], "no path"),
        ({}, ["dataset.train_dataset_dir=gone"], "there is no folder"),
        (
            {},
            [
                "dataset.query_dataset_dir=gone",
                "dataset.validation_fraction=0.5",
                "sweep.confirm.candidates=1",
                "sweep.confirm.repeats=1",
                "dataset.validation_seed=3",
            ],
            "the stage test needs its folders",
        ),
    ],
)
def test_bad_sweeps(
    refused: Callable[..., str],
    spec: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    arguments: list[str],
    part: str,
) -> None:
    monkeypatch.setattr("reid_tune.sweep.stages.preflight.SAMPLE_COUNT", 20)
    tree = {
        "name": "small",
        "spec": "spec.yaml",
        "space": {"train.optim.base_lr": {"loguniform": [1e-4, 1e-2]}},
        "budget": {"trials": 2},
        "registry": {"model": "m"},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tree | changes))
    assert part in refused("sweep", "sweep.yaml", *arguments)
    assert part in refused("sweep", "sweep.yaml", *arguments, "--dry-run")


def test_report_in_all_formats(run: Run, tmp_path: Path) -> None:
    registered = {"model": "m", "alias": "champion", "version": 3, "reason": "no other version had the alias"}
    with EventLog(tmp_path / "elsewhere" / "s" / "events.jsonl") as log:
        log.append(sweep_header(name="s", sweep={"objective": {"metric": "mAP"}, "budget": {"trials": 1}}, spec={}))
        log.append(RunSuggested(run="trials/0000", parameters={}))
        log.append(EpochReported(run="trials/0000", epoch=1, metrics={"mAP": 0.5}))
        log.append(RunEnded(run="trials/0000", state="finished", epoch=1))
        log.append(StageDone(stage="register", result=registered))
    arguments = ("report", "s", "--storage", "elsewhere")
    content = json.loads(run(*arguments, "--format", "json").out)
    assert content["winner"] == 0 and content["trial0"] == 0.5
    assert yaml.safe_load(run(*arguments, "--format", "yaml").out) == content
    table = run(*arguments).out
    assert "50.0" in table and "registered: models:/m@champion (version 3)" in table
    assert "model: elsewhere/s/export/winner.onnx" in table


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (KeyboardInterrupt(), 130, "reid-tune: stopped\n"),
        (RunFailedError("the loss is nan."), 1, "reid-tune: the loss is nan.\n"),
        (InfrastructureError("the disk is full."), 3, "reid-tune: the disk is full.\n"),
        (
            RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
            1,
            "reid-tune: out of memory: CUDA error: out of memory. Free memory, or use another device.\n",
        ),
        *(
            (
                error,
                3,
                f"reid-tune: a limit of this process is reached ({error}): free memory, or raise its limits of memory "
                "and threads (ulimit -v, ulimit -u).\n",
            )
            for error in (
                ImportError("libtorch_cpu.so: failed to map segment from shared object"),
                RuntimeError("can't start new thread"),
            )
        ),
    ],
)
def test_status_by_fault(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, sentence: str
) -> None:
    monkeypatch.setattr("reid_tune.tasks.score.run_score", Mock(side_effect=error))
    assert run("score", "f.npz") == Result(status, "", sentence)


def test_an_interrupted_sweep_says_how_to_continue(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_tune.search_space.load.load_sweep", Mock(return_value=Mock(notes=())))
    monkeypatch.setattr("reid_tune.sweep.run.run_sweep", Mock(side_effect=KeyboardInterrupt))
    result = run("sweep", "a file.yaml", "sweep.name=other", "--until", "search")
    command = "reid-tune sweep 'a file.yaml' sweep.name=other --until search --resume auto"
    assert result == Result(130, "", f"reid-tune: stopped; continue with: {command}\n")


@pytest.mark.parametrize(
    "arguments", [["train"], ["unknown"], ["score", "x", "--format", "xml"], ["sweep", "--resume"]]
)
def test_a_wrong_command_line_is_status_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.status, result.out) == (2, "")
    assert "Error" in result.err and "Traceback" not in result.err
