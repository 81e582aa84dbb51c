"""Batches that a thread draws and reads ahead are those of the sampler and the augmentation."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_tune.config.augmentation import RandomPatch
from reid_tune.training import pipeline
from reid_tune.training.data_split import load_split
from reid_tune.training.image_sets import TrainingImages, load_training_images
from reid_tune.training.pipeline import HostImages, ResidentImages, make_image_source, training_batches

from .conftest import Build

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(build: Build) -> TrainingImages:
    experiment = build()
    return load_training_images(experiment, load_split(experiment).train)


@pytest.mark.parametrize("source", [HostImages, ResidentImages])
def test_batches_are_those_of_each_epoch_and_step(
    build: Build, images: TrainingImages, source: type[HostImages] | type[ResidentImages]
) -> None:
    experiment, steps = build(), images.sampler.steps_per_epoch
    place = source(images.images, CPU)
    with training_batches(experiment, images, place, CPU, range(1, 3)) as batches:
        prepared = list(batches)
    assert len(prepared) == 2 * steps > 2
    for number, batch in enumerate(prepared):
        epoch, step = 1 + number // steps, number % steps
        rows = images.sampler.epoch(epoch)[step]
        decisions = images.augmentation.draw(experiment.train.seed, epoch, step, 16)
        assert np.array_equal(place.load(batch.images), images.images.take(rows))
        assert np.array_equal(batch.labels, images.labels[rows])
        assert np.array_equal(batch.augmentation_params.crop, decisions.crop)
        assert np.array_equal(batch.augmentation_params.boxes, decisions.boxes)


@pytest.mark.parametrize("worker", [0, 1])
def test_images_that_give_a_box_follow_the_images_of_a_worker(
    build: Build, images: TrainingImages, monkeypatch: pytest.MonkeyPatch, worker: int
) -> None:
    monkeypatch.setattr(pipeline, "world_size", lambda: 2)
    monkeypatch.setattr(pipeline, "rank", lambda: worker)
    experiment = build()
    data = replace(images, augmentation=replace(images.augmentation, patch=RandomPatch(prob=0.5)))
    with training_batches(experiment, data, HostImages(images.images, CPU), CPU, range(1)) as batches:
        batch = next(batches)
    params = data.augmentation.draw(experiment.train.seed, 0, 0, 16)
    share = range(8 * worker, 8 * worker + 8)
    origins = [params.patch_sources[image, 0] for image in share if params.patches[image, 2]]
    rows = images.sampler.epoch(0)[0]
    assert 0 < len(origins) < 8
    assert np.array_equal(batch.images, images.images.take(rows[[*share, *origins]]))


def test_a_fault_of_the_thread_reaches_the_loop_and_the_thread_ends(
    build: Build, images: TrainingImages, tmp_path: Path
) -> None:
    class Broken(HostImages):
        def read(self, rows: np.ndarray) -> torch.Tensor:
            raise OSError("the cache is gone")

    source = Broken(images.images, CPU)
    with (
        pytest.raises(OSError, match="the cache is gone"),
        training_batches(build(), images, source, CPU, range(3)) as batches,
    ):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_a_loop_that_stops_early_leaves_no_thread(build: Build, images: TrainingImages) -> None:
    with training_batches(build(), images, HostImages(images.images, CPU), CPU, range(100)) as batches:
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize(
    ("resident", "free_times_images", "expected"),
    [
        ("auto", 4, "ResidentImages"),
        ("auto", 3.9, "HostImages"),
        (True, 1, "ResidentImages"),
        (False, 100, "HostImages"),
    ],
)
def test_images_stay_on_a_gpu_where_they_take_a_quarter_of_its_free_memory(
    build: Build,
    images: TrainingImages,
    monkeypatch: pytest.MonkeyPatch,
    resident: bool | str,
    free_times_images: float,
    expected: str,
) -> None:
    """The GPU and the copy to it are stand-ins."""
    size = float(np.prod(images.images.shape))
    monkeypatch.setattr(pipeline, "_free_memory", lambda _: free_times_images * size)
    for name in ("ResidentImages", "HostImages"):
        monkeypatch.setattr(pipeline, name, lambda *_, name=name: name)
    gpu = torch.device("cuda", 0)
    assert make_image_source(images.images, build(dataset__resident=resident), gpu) == expected
    assert make_image_source(images.images, build(dataset__resident=resident), CPU) == "HostImages"
