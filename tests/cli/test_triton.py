"""`reid-tune triton repository` as a user meets it."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ..helpers.registered_models import put
from ..helpers.triton_models import write_model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a folder with a model: its status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_model(tmp_path / "people.onnx")
    return partial(command, "triton", "repository")


def test_a_file_is_served_by_its_name(run: Run) -> None:
    assert run("people.onnx", "models") == (0, "models/people/1\n", "")
    assert Path("models/people/1/model.onnx").read_bytes() == Path("people.onnx").read_bytes()
    assert "max_batch_size: 16\n" in Path("models/people/config.pbtxt").read_text()
    status, out, err = run("people.onnx", "models")
    assert (status, out) == (2, "") and err == (
        "reid-tune: models/people exists: give --version 2 to add a version, or --overwrite to replace version 1.\n"
    )
    assert run("people.onnx", "models", "--version", 2)[:2] == (0, "models/people/2\n")
    assert run("people.onnx", "models", "--overwrite")[:2] == (0, "models/people/2\n")


def test_every_option_reaches_the_configuration(run: Run) -> None:
    words = "--name other --max-batch-size 8 --preferred-batch-size 4 --preferred-batch-size 8 --delay 100"
    assert run("people.onnx", "models", *words.split(), "--device", "gpu:1,3", "--instances", 2, "--threads", 3)[0] == 0
    config = Path("models/other/config.pbtxt").read_text()
    for line in (
        'name: "other"',
        "max_batch_size: 8",
        "preferred_batch_size: [4, 8]",
        "max_queue_delay_microseconds: 100",
        "gpus: [1, 3]",
        "kind: KIND_GPU",
        "count: 2",
        'key: "intra_op_thread_count"\n  value {\n    string_value: "3"\n',
    ):
        assert line in config


def test_an_engine_is_built_by_the_command_that_is_printed(run: Run) -> None:
    status, out, err = run("people.onnx", "models", "--flavour", "tensorrt")
    place, command = out.splitlines()
    assert (status, place) == (0, "models/people/1") and "on the GPU that serves the model" in err
    assert command.startswith("trtexec --onnx=models/people/1/model.onnx --minShapes=input:1x3x8x4 ")


def test_a_sweep_is_served_by_its_name(run: Run) -> None:
    winner = Path("runs/week-1/export/winner.onnx")
    winner.parent.mkdir(parents=True)
    shutil.copy("people.onnx", winner)
    Path("runs/week-1/events.jsonl").touch()
    assert run("sweep:week-1", "models")[:2] == (0, "models/week-1/1\n")


@pytest.mark.integration
def test_a_registered_model_is_served_by_its_name(run: Run) -> None:
    files = {"model.onnx": Path("people.onnx").absolute()}
    put(f"sqlite:///{Path.cwd()}/mlflow.db", files, "reid-market", "week-1")
    assert run("models:/reid-market/1", "models")[:2] == (0, "models/reid-market/1\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("missing.onnx models", "there is no checkpoint missing.onnx."),
        ("text.onnx models", "text.onnx is not an ONNX file, or is damaged; give an .onnx file."),
        ("people.onnx text.onnx", "cannot make the folder text.onnx: File exists; choose another path."),
        ("people.onnx models --name a/b", "'a/b' is not a valid model name: give --name 1 to 64 letters, digits,"),
        ("people.onnx models --device tpu", "device 'tpu': give auto, cpu, gpu or GPUs by number such as gpu:0,1."),
        (
            "people.onnx models --preferred-batch-size 32",
            "preferred batch sizes 32: each must be 1 to 16, the largest.",
        ),
        (
            "people.onnx models --threads 2 --flavour tensorrt",
            "threads 2: TensorRT does not use them; leave them out, or",
        ),
        ("people.onnx models --delay 99999999999", "delay 99999999999: 2,147,483,647 is the largest number that"),
        ("people.onnx models --device gpu:1,9999999999", "GPU 9999999999: 2,147,483,647 is the largest"),
        ("sweep:none models", "there is no sweep 'none' in"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, words: str, said: str) -> None:
    Path("text.onnx").write_text("no model")
    status, out, err = run(*words.split())
    assert (status, out) == (2, "") and err.startswith(f"reid-tune: {said}") and err.count("\n") == 1
    assert not Path("models").exists()
