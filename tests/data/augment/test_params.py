from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from reid_tune.config.dataset import ColorJitter
from reid_tune.data.augment.augmentation import Augmentation
from reid_tune.data.augment.params import NOISE_OFFSETS, AugmentationParams
from reid_tune.data.image_spec import ImageSpec

AUGMENTATION = Augmentation(ImageSpec(256, 128, "bilinear"), flip=0.3, padding=10, erase=0.4)
MANY = 20_000
FIRST = [
    [False, True, False, False, False, False],
    [[7, 19], [15, 17], [5, 18], [1, 8], [11, 1], [19, 11]],
    [[0, 0, 0, 0], [0, 0, 0, 0], [8, 16, 145, 78], [0, 0, 0, 0], [91, 47, 76, 42], [0, 0, 0, 0]],
    [801283, 71078, 736646, 143116, 998610, 628070],
]


JITTER = ColorJitter(prob=0.3, brightness=0.2, contrast=0.4, saturation=1.0, hue=0.1)


def arrays(decisions: AugmentationParams) -> list[np.ndarray]:
    """What is drawn for each image, colour jitter apart."""
    return [decisions.flip, decisions.crop, decisions.boxes, decisions.noise]


def equal(one: AugmentationParams, other: AugmentationParams) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


def test_decisions_depend_on_seed_epoch_and_step() -> None:
    drawn = AUGMENTATION.draw(1, 2, 3, 64)
    assert equal(drawn, AUGMENTATION.draw(1, 2, 3, 64))
    for other in [(0, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2)]:
        assert not equal(drawn, AUGMENTATION.draw(*other, 64))


def test_flip_crop_and_noise_are_uniform() -> None:
    drawn = AUGMENTATION.draw(0, 0, 0, MANY)
    assert abs(drawn.flip.mean() - 0.3) < 0.015
    for axis in range(2):
        shares = np.bincount(drawn.crop[:, axis], minlength=21) / MANY
        assert len(shares) == 21 and np.abs(shares - 1 / 21).max() < 0.008
    assert drawn.noise.min() >= 0 and drawn.noise.max() < NOISE_OFFSETS
    assert abs(drawn.noise.mean() / NOISE_OFFSETS - 0.5) < 0.01


@pytest.mark.parametrize(("erasing", "largest"), [("mean", 0.4), ("noise", 1 / 3)])
def test_boxes_have_the_documented_size_and_lie_inside(erasing: str, largest: float) -> None:
    boxes = replace(AUGMENTATION, erasing=erasing).draw(0, 0, 0, MANY).boxes
    erased = boxes[:, 2] > 0
    assert abs(erased.mean() - 0.4) < 0.015
    assert (boxes[~erased] == 0).all()
    top, left, height, width = boxes[erased].T
    assert top.min() == 0 and left.min() == 0
    assert (top + height).max() == 256 and (left + width).max() == 128
    assert (height < 256).all() and (width < 128).all()
    area, aspect = height * width / (256 * 128), height / width
    assert 0.018 < area.min() < 0.025 and largest - 0.03 < area.max() < largest + 0.005
    assert 0.28 < aspect.min() < 0.33 and 3.0 < aspect.max() < 3.6


def by_rejection(rng: np.random.Generator, erasing: str) -> tuple[int, int]:
    """Height and width of one box, drawn as the papers' code describes it."""
    while True:
        area = rng.uniform(0.02, 0.4 if erasing == "mean" else 1 / 3) * 256 * 128
        aspect = rng.uniform(0.3, 3.33) if erasing == "mean" else np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
        height, width = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if height < 256 and width < 128:
            return height, width


@pytest.mark.parametrize("erasing", ["mean", "noise"])
def test_sizes_are_distributed_as_by_rejection(erasing: str) -> None:
    rng = np.random.default_rng(1)
    boxes = replace(AUGMENTATION, erasing=erasing, erase=1.0).draw(0, 0, 0, MANY).boxes
    expected = np.array([by_rejection(rng, erasing) for _ in range(MANY)])
    for axis, limit in ((0, 256), (1, 128)):
        quantiles = [
            np.quantile(sizes, np.linspace(0.05, 0.95, 10)) for sizes in (boxes[:, 2 + axis], expected[:, axis])
        ]
        assert np.abs(quantiles[0] - quantiles[1]).max() < 0.02 * limit


def test_corners_are_uniform_over_the_places_of_a_box() -> None:
    top, left, height, width = replace(AUGMENTATION, erase=1.0).draw(0, 0, 0, MANY).boxes.T
    for corner, room in ((top, 256 - height), (left, 128 - width)):
        assert abs((corner / room).mean() - 0.5) < 0.01
        assert abs((corner == room).mean() - (1 / (room + 1)).mean()) < 0.005


def test_probabilities_of_zero_and_one() -> None:
    never = replace(AUGMENTATION, flip=0.0, padding=0, erase=0.0).draw(0, 0, 0, 500)
    assert not never.flip.any() and not never.crop.any() and not never.boxes.any()
    always = replace(AUGMENTATION, flip=1.0, erase=1.0).draw(0, 0, 0, 500)
    assert always.flip.all() and (always.boxes[:, 2:] > 0).all()


def test_a_slice_is_a_part_of_every_array() -> None:
    drawn = AUGMENTATION.draw(0, 0, 0, 10)
    part = drawn.slice(3, 7)
    assert [len(array) for array in arrays(part)] == [4] * 4 and part.jitter is None
    assert np.array_equal(part.boxes, drawn.boxes[3:7]) and np.array_equal(part.crop, drawn.crop[3:7])


def test_the_draws_without_jitter_are_those_they_have_always_been() -> None:
    """Numbers of the first release: a run that is continued with a later one must see the same images."""
    drawn = AUGMENTATION.draw(1, 2, 3, 6)
    assert [array.tolist() for array in arrays(drawn)] == FIRST
    assert drawn.jitter is None


@pytest.mark.parametrize("erasing", ["mean", "noise"])
def test_jitter_leaves_the_other_draws_as_they_are(erasing: str) -> None:
    without = replace(AUGMENTATION, erasing=erasing)
    for step in range(5):
        assert equal(replace(without, jitter=JITTER).draw(1, 2, step, 64), without.draw(1, 2, step, 64))


def test_jitter_is_drawn_by_its_probability_and_uniformly_in_its_ranges() -> None:
    jitter = replace(AUGMENTATION, jitter=JITTER).draw(0, 0, 0, MANY).jitter
    assert abs(jitter.selected.mean() - 0.3) < 0.015
    for factor, (low, high) in zip(jitter.factors.T, [(0.8, 1.2), (0.6, 1.4), (0.0, 2.0), (-0.1, 0.1)], strict=True):
        shares = np.histogram(factor, 10, (low, high))[0] / MANY
        assert low <= factor.min() and factor.max() <= high
        assert np.abs(shares - 0.1).max() < 0.01
    assert np.abs(np.corrcoef(jitter.factors.T) - np.eye(4)).max() < 0.03


def test_one_order_for_a_step_and_all_orders_over_the_steps() -> None:
    augmentation = replace(AUGMENTATION, jitter=JITTER)
    orders = [tuple(augmentation.draw(0, 0, step, 4).jitter.order) for step in range(480)]
    counts = [orders.count(order) for order in permutations(range(4))]
    assert sum(counts) == 480 and min(counts) > 5 and max(counts) < 40


def test_a_slice_of_jitter_keeps_the_order() -> None:
    drawn = replace(AUGMENTATION, jitter=JITTER).draw(0, 0, 0, 10)
    part = drawn.slice(3, 7)
    assert np.array_equal(part.jitter.order, drawn.jitter.order)
    assert np.array_equal(part.jitter.selected, drawn.jitter.selected[3:7])
    assert np.array_equal(part.jitter.factors, drawn.jitter.factors[3:7])
