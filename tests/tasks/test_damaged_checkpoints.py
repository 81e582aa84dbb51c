"""Every task that opens a checkpoint refuses one of which a bit has changed, and the sentence names the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.checkpoints.checkpoint import load_checkpoint, strip_checkpoint
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.errors import InputError
from reid_tune.tasks.common.open_model import open_network
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.export import run_export
from reid_tune.tasks.inference import run_inference
from reid_tune.tasks.train import run_train

from .conftest import Spec

Task = Callable[[Path, Spec, Path], Any]
TASKS: dict[str, Task] = {
    "resume": lambda path, spec, folder: run_train(spec(train__resume_training_checkpoint_path=str(path))),
    "continue": lambda path, spec, folder: run_train(spec(results_dir=str(place_latest(path, folder)))),
    "pretrained": lambda path, spec, folder: run_train(spec(model__pretrained_model_path=str(path))),
    "evaluate": lambda path, spec, folder: run_evaluate(spec(evaluate__checkpoint=str(path))),
    "evaluate a folder": lambda path, spec, folder: run_evaluate(spec(evaluate__checkpoint=str(path.parent))),
    "inference": lambda path, spec, folder: run_inference(spec(inference__checkpoint=str(path))),
    "export": lambda path, spec, folder: run_export(spec(export__checkpoint=str(path)), None, {}),
    "export without a spec": lambda path, spec, folder: run_export(None, str(path), {}),
    "open": lambda path, spec, folder: open_network(path, spec()),
    "strip": lambda path, spec, folder: strip_checkpoint(path, folder / "copy.pth"),
}


def place_latest(path: Path, folder: Path) -> Path:
    target = folder / "results" / "train" / LATEST
    target.parent.mkdir(parents=True)
    path.rename(target)
    return folder / "results"


def flip_bit(path: Path) -> None:
    """Flip a bit of a weight of the network."""
    name, tensor = max(load_checkpoint(path).model.items(), key=lambda item: item[1].numel())
    content = bytearray(path.read_bytes())
    content[content.index(tensor.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    changed = torch.load(path, weights_only=True)["model"][name]
    assert (changed != tensor).sum() == 1, "PyTorch reads it as data"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_checkpoint_with_a_flipped_bit_is_refused(task: Task, checkpoint: Path, spec: Spec, tmp_path: Path) -> None:
    flip_bit(checkpoint)
    with pytest.raises(InputError, match=f"({checkpoint.name}|{LATEST}) is damaged") as caught:
        task(checkpoint, spec, tmp_path)
    assert "\n" not in str(caught.value)
