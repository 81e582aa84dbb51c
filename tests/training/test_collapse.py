"""Embeddings that collapse during a training: told in the validation, and a failure where nothing can be ranked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_tune.errors import InputError, NonFiniteError
from reid_tune.training import loop
from reid_tune.training.loop import train

from .conftest import Build, Recorder, draw

Embed = Callable[[int], np.ndarray]


@pytest.fixture
def embed_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Embed], None]:
    """Return a function that replaces the embeddings of validations, by the number of images."""

    def replace(embed: Embed) -> None:
        monkeypatch.setattr(loop, "make_embed_function", lambda network, experiment: lambda images: embed(len(images)))

    return replace


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 8), dtype=np.float32)


@pytest.mark.parametrize(
    ("embed", "sentence"),
    [
        pytest.param(noise, None, id="ordinary"),
        pytest.param(lambda count: noise(count) + 10, None, id="a common component"),
        pytest.param(lambda count: noise(2)[np.arange(count) % 2], "collapsed: 2 of 12 gallery rows", id="two rows"),
        pytest.param(lambda count: np.float32(1) + noise(count) / 10_000, "almost collapsed: the mean", id="close"),
    ],
)
def test_a_collapse_is_told_once_and_reported(
    build: Build, data: Path, tmp_path: Path, embed_with: Callable[[Embed], None], embed: Embed, sentence: str | None
) -> None:
    embed_with(embed)
    recorder = Recorder()
    folders = {"dataset__query_dataset_dir": str(data / "query"), "dataset__test_dataset_dir": str(data / "gallery")}
    values = {**folders, "dataset__validation": "test", "train__validation_interval": 1}
    trained = train(build(**values), recorder, tmp_path)
    warnings = [message for message in recorder.messages if message.startswith("warning")]
    if sentence is None:
        assert not warnings and not any("collapse" in epoch for epoch in trained.history)
    else:
        (warning,) = warnings
        assert warning.startswith("warning: validation of epoch 1: the embeddings") and sentence in warning
        assert [sentence in epoch["collapse"] for epoch in trained.history] == [True] * 3
        assert recorder.reports[-1]["collapse"] == trained.history[-1]["collapse"]


@pytest.mark.parametrize(
    ("embed", "sentence"),
    [
        (lambda count: np.ones((count, 8), np.float32), "nothing can be ranked: .* as all 12 gallery rows are equal"),
        (lambda count: np.full((count, 8), np.nan, np.float32), "is not finite"),
        (lambda count: np.zeros((count, 8), np.float32), "is all zero"),
    ],
)
def test_a_trial_whose_embeddings_cannot_be_ranked_fails(
    build: Build, data: Path, tmp_path: Path, embed_with: Callable[[Embed], None], embed: Embed, sentence: str
) -> None:
    embed_with(embed)
    folders = {"dataset__query_dataset_dir": str(data / "query"), "dataset__test_dataset_dir": str(data / "gallery")}
    with pytest.raises(NonFiniteError, match=f"fails the validation of epoch 2: .*{sentence}.* lower train.optim"):
        train(build(**folders, dataset__validation="test"), Recorder(), tmp_path)


def one_camera(folder: Path, identities: range, images: int) -> None:
    folder.mkdir()
    for identity in identities:
        for number in range(images):
            Image.new("RGB", (16, 32)).save(folder / f"{identity:04d}_c1s1_{number:06d}_00.png")


@pytest.mark.parametrize(
    ("identities", "make", "sentence"),
    [
        (range(101, 102), draw, "every gallery image without junk has identity 101"),
        (range(101, 105), one_camera, "no query has a match .* all images have camera 1; number the cameras"),
    ],
)
def test_a_validation_that_ranks_nothing_is_refused_before_the_first_epoch(
    build: Build, tmp_path: Path, identities: range, make: Callable[..., Any], sentence: str
) -> None:
    folders = {"dataset__query_dataset_dir": tmp_path / "query", "dataset__test_dataset_dir": tmp_path / "gallery"}
    for folder in folders.values():
        make(folder, identities, 3)
    recorder = Recorder()
    values = {name: str(folder) for name, folder in folders.items()}
    with pytest.raises(InputError, match=sentence):
        train(build(**values, dataset__validation="test"), recorder, tmp_path / "run")
    assert recorder.started is None
