import argparse
import os
import pickle
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from reid_tune.checkpoints.third_party_file import read_third_party_weights
from reid_tune.errors import InputError

WEIGHTS = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "bn1.bias": torch.ones(2)}


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_third_party_weights(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def same(read: Any) -> bool:
    return read.keys() == WEIGHTS.keys() and all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


@contextmanager
def fake_module(name: str) -> Iterator[ModuleType]:
    """A module that can be imported inside the block only."""
    parts = name.split(".")
    made = [".".join(parts[: count + 1]) for count in range(len(parts))]
    made = [part for part in made if part not in sys.modules]
    for part in made:
        sys.modules[part] = ModuleType(part)
    try:
        yield sys.modules[name]
    finally:
        for part in made:
            del sys.modules[part]


def put(module: ModuleType, kind: Any) -> Any:
    """The class or function as if the module had defined it."""
    kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
    setattr(module, kind.__name__, kind)
    return kind


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("ending", [".pth", ".pt", ".ckpt", ".tlt", ".bin"])
def test_tensors_are_read_from_both_forms_of_torch(tmp_path: Path, ending: str, zipped: bool) -> None:
    path = tmp_path / f"weights{ending}"
    torch.save(OrderedDict(WEIGHTS), path, _use_new_zipfile_serialization=zipped)
    assert same(read_third_party_weights(path))
    assert same(read_third_party_weights(str(path)))


def test_tensors_are_read_from_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    assert same(read_third_party_weights(tmp_path / "weights.safetensors"))


def test_plain_data_next_to_the_weights_is_kept(tmp_path: Path) -> None:
    content = {"state_dict": WEIGHTS, "epoch": 3, "names": ["a", None, 0.5], "nested": {"x": (1, True)}}
    torch.save(content, tmp_path / "a.ckpt")
    read = read_third_party_weights(tmp_path / "a.ckpt")
    assert {key: read[key] for key in ("epoch", "names", "nested")} == {
        "epoch": 3,
        "names": ["a", None, 0.5],
        "nested": {"x": (1, True)},
    }


def test_objects_of_omegaconf_are_read_without_omegaconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = OmegaConf.create({"train": {"optim": {"lr_steps": [40, 70]}}, "key": "abc", "same": "${key}"})
    assert config.same == "abc"
    content = {"state_dict": WEIGHTS, "hyper_parameters": config, "lr_schedulers": [config.train.optim.lr_steps]}
    torch.save(content, tmp_path / "a.ckpt")
    for name in [name for name in sys.modules if name.partition(".")[0] == "omegaconf"]:
        monkeypatch.setitem(sys.modules, name, None)
    read = read_third_party_weights(tmp_path / "a.ckpt")
    assert same(read["state_dict"])
    assert {type(read["hyper_parameters"]), type(read["lr_schedulers"][0])} == {type(read["hyper_parameters"])}
    assert vars(read["hyper_parameters"]) == {}


@pytest.mark.parametrize(
    "name",
    [
        "lightning.pytorch.utilities.parsing",
        "pytorch_lightning.callbacks.model_checkpoint",
        "lightning_fabric.utilities.data",
        "nvidia_tao_core.config.re_identification.default_config",
        "nvidia_tao_pytorch.cv.re_identification.lr_schedulers.cosine_lr",
    ],
)
def test_objects_of_tools_become_placeholders_however_they_were_pickled(tmp_path: Path, name: str) -> None:
    path, ran = tmp_path / "a.ckpt", tmp_path / "ran"
    with fake_module(name) as module:

        def touch(self: Any, *_: Any) -> None:
            ran.touch()

        class Plain:  # NEWOBJ and BUILD of a dictionary
            def __init__(self) -> None:
                self.value = 1

        class Slots:  # BUILD of (None, slots)
            __slots__ = ("value",)

            def __init__(self) -> None:
                self.value = 1

        class Stated:  # BUILD of any state
            def __getstate__(self) -> list[int]:
                return [1, 2]

            __setstate__ = touch

        class Called:  # REDUCE with arguments
            def __init__(self, *values: int) -> None:
                self.values = values
                touch(self)

            def __reduce__(self) -> tuple[Any, ...]:
                return Called, self.values

        class Made(int):  # NEWOBJ with arguments
            def __new__(cls, value: int) -> "Made":
                touch(cls)
                return super().__new__(cls, value)

            def __getnewargs__(self) -> tuple[int]:
                return (int(self),)

        class AttributeDict(dict):  # SETITEMS, then BUILD
            pass

        def function() -> None:
            ran.touch()

        for kind in (Plain, Slots, Stated, Called, Made, AttributeDict, function):
            put(module, kind)
        filled = AttributeDict(a=1)
        filled.more = 2
        made = [Plain(), Slots(), Stated(), Called(1, 2), Made(7), Plain, function, filled]
        torch.save({"state_dict": WEIGHTS, "objects": made, "by_key": {made[0]: 1}}, path)
        ran.unlink()
    assert name not in sys.modules
    read = read_third_party_weights(path)
    assert same(read["state_dict"]) and len(read["objects"]) == len(made)
    assert read["objects"][-1] == {"a": 1}
    assert not ran.exists()


def test_objects_next_to_the_weights_of_a_training_checkpoint_are_accepted(tmp_path: Path) -> None:
    counts: defaultdict[str, int] = defaultdict(int, a=1)
    content = {
        "teacher": WEIGHTS,
        "args": argparse.Namespace(lr=0.1),
        "counts": counts,
        "best": np.float64(0.5),
        "curve": np.arange(3),
        "where": Path("a"),
        "version": torch.__version__,
        "kind": dict,
    }
    torch.save(content, tmp_path / "a.pth")
    read = read_third_party_weights(tmp_path / "a.pth")
    assert same(read["teacher"]) and read["counts"] == {"a": 1}


class Payload:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


def test_a_long_name_of_damaged_code_is_shortened(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02c" + b"torch\0" * 1000 + b"\nstore\n.")
    message = refused(path)
    assert "is rejected: it contains 'torch" in message and len(message) < 1600


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("ending", [".pth", ".ckpt"])
@pytest.mark.parametrize(("function", "name"), [(os.system, "system"), (eval, "eval"), (exec, "exec")])
def test_code_is_refused_by_name_and_does_not_run(
    tmp_path: Path, ending: str, zipped: bool, function: Callable[..., Any], name: str
) -> None:
    path, proof = tmp_path / f"evil{ending}", tmp_path / "proof"
    code = f"touch {proof}" if function is os.system else f"open({str(proof)!r}, 'w')"
    torch.save({"state_dict": WEIGHTS, "x": Payload(function, code)}, path, _use_new_zipfile_serialization=zipped)
    message = refused(path)
    assert "is rejected: it contains" in message and f"{name}, which is code" in message
    assert not proof.exists()
    with path.open("rb"):
        torch.load(path, weights_only=False)
    assert proof.exists(), "the payload of this test does nothing"


def test_a_class_of_an_unknown_module_and_a_whole_network_are_refused(tmp_path: Path) -> None:
    with fake_module("somebody.models") as module:
        torch.save({"net": put(module, type("Net", (), {}))()}, tmp_path / "a.pth")
    assert "it contains somebody.models.Net, which is code" in refused(tmp_path / "a.pth")
    with fake_module("some\x1b[2Jbody") as module:
        torch.save(put(module, type("Net", (), {}))(), tmp_path / "b.pth")
    assert "it contains 'some\\x1b[2Jbody.Net', which is code" in refused(tmp_path / "b.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pth")
    assert "it contains torch.nn.modules.linear.Linear, which is code" in refused(tmp_path / "b.pth")


def test_a_reading_allows_nothing_to_the_next_one(tmp_path: Path) -> None:
    before = torch.serialization.get_safe_globals()
    torch.save({"x": OmegaConf.create([1])}, tmp_path / "a.pth")
    read_third_party_weights(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == set(before)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "does not exist or cannot be read" in refused(tmp_path / "none.pth")
    assert "does not exist or cannot be read" in refused(tmp_path)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.1, 0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str, kept: float) -> None:
    path = tmp_path / f"a{ending}"
    large = {"w": torch.randn(64, 64)}
    save_file(large, path) if ending == ".safetensors" else torch.save(large, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "has no weights that can be read without executing code, or it is damaged" in refused(path)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_text("just some text\n")
    assert "or it is damaged" in refused(path)
    path.write_bytes(pickle.dumps({"w": 1}, protocol=5))
    assert "give a file of torch.save or .safetensors" in refused(path)
    torch.save(torch.ones(2), path)
    assert "contains a Tensor instead of weights by name" in refused(path)


def test_weights_that_the_reference_has_encrypted_are_refused(tmp_path: Path) -> None:
    content = {"state_dict": b"\x00\xff secret", "state_dict_encrypted": True, "epoch": 3}
    torch.save(content, tmp_path / "a.pth")
    assert "weights encrypted by TAO" in refused(tmp_path / "a.pth")
    torch.save({"state_dict": WEIGHTS, "state_dict_encrypted": False}, tmp_path / "a.pth")
    assert same(read_third_party_weights(tmp_path / "a.pth")["state_dict"])
