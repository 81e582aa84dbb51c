"""Colour jitter against torchvision's functions, image by image."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from reid_tune.config.dataset import ColorJitter
from reid_tune.data.augment.augmentation import Augmentation
from reid_tune.data.augment.color_jitter import jitter_colors
from reid_tune.data.augment.params import AugmentationParams, JitterParams
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.normalisation import normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.226, 0.3, 0.25)
HEIGHT, WIDTH = 40, 24
STRONG = ColorJitter(prob=0.6, brightness=0.8, contrast=0.9, saturation=1.0, hue=0.5)
ADJUST = (
    reference.adjust_brightness,
    reference.adjust_contrast,
    reference.adjust_saturation,
    reference.adjust_hue,
)
SPEC = ImageSpec(HEIGHT, WIDTH, "bilinear", 3, MEAN, STD)
AUGMENTATION = Augmentation(SPEC, padding=3, jitter=STRONG)


def images(count: int) -> Tensor:
    """Noise, with a black, a white, a grey and a red image at the end."""
    made = torch.randint(
        0, 256, (count, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    made[-4:] = torch.tensor([[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 0]])[:, None, None].byte()
    return made


def by_torchvision(image: Tensor, factors: np.ndarray, order: tuple[int, ...]) -> Tensor:
    """One image [H, W, 3] adjusted by the usual functions, 0..1."""
    planes = image.permute(2, 0, 1)
    if planes.dtype == torch.uint8:
        planes = planes.float() / 255
    for operation in order:
        planes = ADJUST[operation](planes, float(factors[operation]))
    return planes.permute(1, 2, 0)


def forced(factors: np.ndarray, order: tuple[int, ...] = (0, 1, 2, 3)) -> JitterParams:
    return JitterParams(np.ones(len(factors), bool), factors, np.array(order))


@pytest.mark.parametrize("order", permutations(range(4)))
def test_all_four_in_any_order_equal_torchvision(order: tuple[int, ...]) -> None:
    batch = images(24)
    factors = AUGMENTATION.draw(1, 2, 3, 24).jitter.factors
    expected = torch.stack([by_torchvision(image, factors[i], order) for i, image in enumerate(batch)])
    torch.testing.assert_close(jitter_colors(batch, forced(factors, order)) / 255, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("operation", "values"),
    [
        (0, [0.0, 0.5, 1.0, 2.0]),
        (1, [0.0, 0.5, 1.0, 2.0]),
        (2, [0.0, 0.5, 1.0, 2.0]),
        (3, [-0.5, -0.3, 0.0, 0.02, 1 / 6, 0.5]),
    ],
)
def test_each_is_within_two_levels_of_torchvision_on_bytes(operation: int, values: list[float]) -> None:
    batch = images(8)
    for value in values:
        factors = np.tile([1.0, 1.0, 1.0, 0.0], (8, 1))
        factors[:, operation] = value
        expected = [ADJUST[operation](image.permute(2, 0, 1), value).permute(1, 2, 0) for image in batch]
        difference = jitter_colors(batch, forced(factors)) - torch.stack(expected).float()
        assert difference.abs().max() <= 2


def test_only_chosen_images_change_and_the_input_is_left_alone() -> None:
    batch = images(30)
    copy = batch.clone()
    jitter = AUGMENTATION.draw(0, 0, 0, 30).jitter
    output = jitter_colors(batch, jitter)
    chosen = torch.from_numpy(jitter.selected)
    assert 8 < chosen.sum() < 26
    assert torch.equal(output[~chosen], batch[~chosen].float())
    assert all((output[i] - batch[i]).abs().max() > 1 for i in torch.nonzero(chosen)[:-4, 0])
    assert torch.equal(batch, copy)
    assert output.min() >= 0 and output.max() <= 255


def test_nobody_chosen_changes_nothing() -> None:
    batch = images(5)
    nobody = JitterParams(np.zeros(5, bool), np.full((5, 4), 0.3), np.arange(4))
    assert torch.equal(jitter_colors(batch, nobody), batch.float())


def test_it_comes_after_the_crop_and_before_the_mean() -> None:
    batch, decisions = images(20), AUGMENTATION.draw(4, 5, 6, 20)
    still = replace(decisions, boxes=np.zeros((20, 4), int))
    crops = replace(AUGMENTATION, image_spec=ImageSpec(HEIGHT, WIDTH, "bilinear")).apply(
        batch, replace(still, jitter=None)
    )
    jitter = still.jitter
    expected = [
        by_torchvision(crop.permute(1, 2, 0), jitter.factors[i], jitter.order)
        if jitter.selected[i]
        else crop.permute(1, 2, 0)
        for i, crop in enumerate(crops)
    ]
    expected = (torch.stack(expected) - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(AUGMENTATION.apply(batch, still), expected.permute(0, 3, 1, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("padding", [0, 3])
def test_slices_of_workers_make_the_whole_batch(padding: int) -> None:
    augmentation = replace(AUGMENTATION, padding=padding)
    batch, decisions = images(30), augmentation.draw(5, 6, 7, 30)
    bounds = [0, 1, 11, 30]
    parts = [
        augmentation.apply(batch[start:stop], decisions.slice(start, stop))
        for start, stop in zip(bounds, bounds[1:], strict=False)
    ]
    assert torch.equal(torch.cat(parts), augmentation.apply(batch, decisions))


def test_grey_images_have_brightness_and_contrast_alone() -> None:
    batch = images(6)[..., :1].expand(-1, -1, -1, 3).contiguous()
    grey = replace(AUGMENTATION, image_spec=replace(SPEC, channels=1))
    factors = np.tile([1.0, 1.0, 0.2, 0.4], (6, 1))
    decisions = AugmentationParams(np.zeros(6, bool), np.full((6, 2), 3), np.zeros((6, 4), int), np.zeros(6, int))
    output = grey.apply(batch, replace(decisions, jitter=forced(factors)))
    assert torch.equal(output, normalise(batch, grey.image_spec))
    factors[:, :2] = 0.7, 1.6
    output = grey.apply(batch, replace(decisions, jitter=forced(factors)))
    planes = batch[..., :1].permute(0, 3, 1, 2).float() / 255
    expected = [reference.adjust_contrast(reference.adjust_brightness(image, 0.7), 1.6) for image in planes]
    torch.testing.assert_close(output, (torch.stack(expected) - MEAN[0]) / STD[0], atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, 3])
def test_the_device_does_not_matter(channels: int) -> None:
    augmentation = replace(AUGMENTATION, image_spec=replace(SPEC, channels=channels))
    batch, decisions = images(32), augmentation.draw(0, 1, 2, 32)
    on_gpu = augmentation.apply(batch.cuda(), decisions)
    torch.testing.assert_close(on_gpu.cpu(), augmentation.apply(batch, decisions), atol=1e-5, rtol=0)
