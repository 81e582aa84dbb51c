import os
import pickle
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.checkpoints.checkpoint import (
    Checkpoint,
    load_checkpoint,
    package_versions,
    save_checkpoint,
    strip_checkpoint,
)
from reid_tune.checkpoints.damage import content_digest
from reid_tune.checkpoints.encryption import encrypt
from reid_tune.checkpoints.filenames import LATEST, epoch_filename, newest_checkpoint
from reid_tune.errors import InputError


def make() -> Checkpoint:
    return Checkpoint(
        spec={"model": {"backbone": "resnet18"}, "train": {"optim": {"lr_steps": [1, 2]}}, "results_dir": None},
        epoch=2,
        identities=[7, 9],
        history=[{"epoch": 1, "loss": 0.5, "mAP": 0.25}, {"epoch": 2, "loss": 0.25}],
        model={"w": torch.randn(3, 4), "n": torch.tensor(5)},
        optimizer={"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    made = make()
    save_checkpoint(tmp_path / "deep" / "a.pth", made)
    loaded = load_checkpoint(tmp_path / "deep" / "a.pth")
    for part in ("spec", "epoch", "identities", "history", "optimizer", "centers"):
        assert getattr(loaded, part) == getattr(made, part)
    assert loaded.model.keys() == made.model.keys()
    assert all(torch.equal(loaded.model[name], tensor) for name, tensor in made.model.items())
    assert loaded.versions == package_versions() and loaded.versions["torch"] == str(torch.__version__)
    assert os.listdir(tmp_path / "deep") == ["a.pth"]


def test_a_copy_without_optimizer_keeps_the_rest(tmp_path: Path) -> None:
    made = replace(make(), trained_model={"w": torch.zeros(3, 4)})
    save_checkpoint(tmp_path / "a.pth", made)
    strip_checkpoint(tmp_path / "a.pth", tmp_path / "slim.pth")
    slim = load_checkpoint(tmp_path / "slim.pth")
    assert slim.optimizer == slim.trained_model == {} and slim.history == made.history
    assert torch.equal(slim.model["w"], made.model["w"])


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "there is no checkpoint" in refused(tmp_path / "none.pth")
    assert "there is no checkpoint" in refused(tmp_path)
    path = tmp_path / "file.pth"
    path.write_text("just some text\n")
    assert "not a file written by torch.save" in refused(path)
    path.write_bytes(b"")
    assert "is not a checkpoint: it is empty" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "an archive of something else")
    assert "not a checkpoint, or it is damaged" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"w": torch.zeros(2)}, "epoch": 3},
        {"format": "another program's checkpoint 1"},
        torch.zeros(3),
        [1, 2],
    ],
)
def test_files_of_other_programs_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert "not a checkpoint of reid-tune: give a file written by `reid-tune train`" in refused(tmp_path / "a.pth")


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], *, seal: bool = False) -> None:
    """Change a checkpoint's content and write it by torch.save, with a new digest if `seal`."""
    content = torch.load(path, weights_only=True)
    change(content)
    if seal:
        del content["digest"]
        content["digest"] = content_digest(content)
    torch.save(content, path)


def set_bit(content: dict[str, Any]) -> None:
    content["model"]["w"].view(torch.uint8)[0, 0] ^= 1


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("model"),
        lambda content: content.update(digest="00000000"),
        lambda content: content.update(epoch=3),
        lambda content: content["spec"]["model"].update(backbone="resnet34"),
        lambda content: content["history"][1].update(loss=0.26),
        lambda content: content["identities"].reverse(),
        lambda content: content["identities"].append(1),
        lambda content: content["optimizer"]["param_groups"][0].update(lr=0.2),
        lambda content: content["model"].update(n=torch.tensor(5, dtype=torch.int32)),
        lambda content: content["model"].update(w=content["model"]["w"].T.contiguous()),
        lambda content: content["model"].update(v=content["model"].pop("w")),
        lambda content: content["versions"].update(torch="1"),
        set_bit,
    ],
)
def test_content_that_differs_from_its_digest_is_refused(tmp_path: Path, change: Any) -> None:
    save_checkpoint(tmp_path / "a.pth", make())
    rewrite(tmp_path / "a.pth", change)
    message = refused(tmp_path / "a.pth")
    assert "is damaged, so nothing of it is used: its content differs from its digest: restore the file" in message
    rewrite(tmp_path / "a.pth", lambda content: content.setdefault("digest", ""), seal=True)
    if "model" in torch.load(tmp_path / "a.pth", weights_only=True):
        assert isinstance(load_checkpoint(tmp_path / "a.pth"), Checkpoint)


@pytest.mark.parametrize("key", [None, "a passphrase"])
def test_a_checkpoint_of_an_older_version_has_no_digest(tmp_path: Path, key: str | None) -> None:
    save_checkpoint(tmp_path / "a.pth", make())
    rewrite(tmp_path / "a.pth", lambda content: content.pop("digest"))
    if key:
        (tmp_path / "a.pth").write_bytes(encrypt((tmp_path / "a.pth").read_bytes(), key))
    with pytest.raises(InputError, match="has no digest, so an older version of reid-tune wrote it: use it with that"):
        load_checkpoint(tmp_path / "a.pth", key)


def test_other_parts_are_of_another_version(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", make())
    rewrite(tmp_path / "a.pth", lambda content: content.pop("model"), seal=True)
    assert "written by another version of reid-tune: its parts are spec, epoch" in refused(tmp_path / "a.pth")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path, damaged = tmp_path / "a.pth", tmp_path / "b.pth"
    save_checkpoint(path, make())
    content = path.read_bytes()
    for length in (1, 100, len(content) // 2, len(content) - 1):
        damaged.write_bytes(content[:length])
        refused(damaged)


@pytest.mark.parametrize("bits", [1, 3, 20], ids="{} bits".format)
def test_a_file_with_flipped_bits_is_refused_or_is_read_with_the_same_content(tmp_path: Path, bits: int) -> None:
    path, damaged = tmp_path / "a.pth", tmp_path / "b.pth"
    save_checkpoint(path, make())
    content, digest, rng = path.read_bytes(), content_digest(vars(load_checkpoint(path))), random.Random(bits)
    refusals = 0
    for _ in range(200):
        flipped = bytearray(content)
        for _ in range(bits):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(flipped)
        try:
            assert content_digest(vars(load_checkpoint(damaged))) == digest
        except InputError as error:
            assert str(damaged) in str(error) and "\n" not in str(error)
            refusals += 1
    assert refusals > 60  # the others are in the padding between the records


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, touched = tmp_path / "a.pth", tmp_path / "touched"
    code = Malicious(f"touch {touched}")
    pickle.loads(pickle.dumps(code))
    assert touched.exists(), "the trap itself works"
    touched.unlink()
    torch.save({"format": "reid-tune checkpoint 1", **vars(make()), "spec": code}, path)
    assert "is rejected: it contains code or objects" in refused(path)
    torch.save({"format": "reid-tune checkpoint 1", **vars(make())}, path, _use_new_zipfile_serialization=False)
    assert "not a file written by torch.save" in refused(path)
    path.write_bytes(pickle.dumps(code))
    refused(path)
    assert not touched.exists()


def test_objects_of_other_classes_are_refused(tmp_path: Path) -> None:
    torch.save({"format": "reid-tune checkpoint 1", **vars(make()), "spec": Path("x")}, tmp_path / "a.pth")
    assert "is rejected" in refused(tmp_path / "a.pth")


def test_names() -> None:
    assert [epoch_filename(epoch) for epoch in (0, 9, 119, 1000)] == [
        "model_epoch_000.pth",
        "model_epoch_009.pth",
        "model_epoch_119.pth",
        "model_epoch_1000.pth",
    ]
    assert LATEST == "reid_model_latest.pth"


def test_the_newest_attempt_is_by_number(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for attempt in (2, 10, 9):
        (tmp_path / f"attempt-{attempt}").mkdir()
        (tmp_path / f"attempt-{attempt}" / LATEST).touch()
    (tmp_path / "attempt-11").mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "attempt-10" / LATEST
    before = newest_checkpoint(tmp_path, 10)
    assert before and before.parent.name != "attempt-10" and newest_checkpoint(tmp_path, 1) is None
