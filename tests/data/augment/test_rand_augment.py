"""RandAugment against torchvision, image by image."""

from collections.abc import Callable
from dataclasses import replace
from math import atan, degrees

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from reid_tune.config.augmentation import RandAugment
from reid_tune.data.augment.augmentation import Augmentation
from reid_tune.data.augment.rand_augment import OPERATIONS, apply_operations
from reid_tune.data.image_spec import ImageSpec

HEIGHT, WIDTH = 40, 24
BILINEAR = reference.InterpolationMode.BILINEAR


def images(count: int) -> Tensor:
    """Images with a smaller range and more equal pixels than noise, and one of a single colour."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(30, 200, (count, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    batch[:, ::2] = 90
    batch[-1] = 90
    return batch


def shear(image: Tensor, x: float, y: float) -> Tensor:
    """Shear along x or y, which torchvision defines with the other sign."""
    return reference.affine(image, 0, [0, 0], 1, [-degrees(atan(x)), -degrees(atan(y))], BILINEAR)


def shift(image: Tensor, x: float, y: float) -> Tensor:
    """Shift by fractions of a pixel, as two weighted shifts by whole pixels."""
    whole, fraction = np.floor([x, y]).astype(int), np.mod([x, y], 1).max()
    one = reference.affine(image, 0, whole.tolist(), 1, [0.0])
    other = reference.affine(image, 0, (whole + (np.mod([x, y], 1) > 0)).tolist(), 1, [0.0])
    return one * (1 - fraction) + other * fraction


def whole_numbers(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float], Tensor]:
    return lambda image, _: function((image * 255).byte()).float() / 255


# One image [3, H, W], 0..1, and the level.
REFERENCE: dict[str, Callable[[Tensor, float], Tensor]] = {
    "identity": lambda image, level: image,
    "shear_x": lambda image, level: shear(image, 0.3 * level, 0),
    "shear_y": lambda image, level: shear(image, 0, 0.3 * level),
    "translate_x": lambda image, level: shift(image, 150 / 331 * WIDTH * level, 0),
    "translate_y": lambda image, level: shift(image, 0, 150 / 331 * HEIGHT * level),
    "rotate": lambda image, level: reference.affine(image, 30 * level, [0, 0], 1, [0.0], BILINEAR),
    "brightness": lambda image, level: reference.adjust_brightness(image, 1 + 0.9 * level),
    "saturation": lambda image, level: reference.adjust_saturation(image, 1 + 0.9 * level),
    "contrast": lambda image, level: reference.adjust_contrast(image, 1 + 0.9 * level),
    "sharpness": lambda image, level: reference.adjust_sharpness(image, 1 + 0.9 * level),
    "posterize": lambda image, level: whole_numbers(lambda x: reference.posterize(x, 8 - round(4 * abs(level))))(
        image, level
    ),
    "solarize": lambda image, level: reference.solarize(image, 1 - abs(level)),
    "autocontrast": lambda image, level: reference.autocontrast(image),
    "equalize": whole_numbers(reference.equalize),
}


def by_torchvision(image: Tensor, name: str, level: float) -> Tensor:
    return 255 * REFERENCE[name](image.permute(2, 0, 1).float() / 255, level).permute(1, 2, 0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_equals_torchvision(name: str) -> None:
    batch, levels = images(6), np.array([[-1.0], [-0.33], [0.0], [0.3], [0.77], [1.0]])
    output = apply_operations(batch, np.full((6, 1), OPERATIONS.index(name)), levels)
    for image, changed, (level,) in zip(batch, output, levels.tolist(), strict=True):
        torch.testing.assert_close(changed, by_torchvision(image, name, level), atol=0.05, rtol=0)


def test_each_image_has_its_own_operations_in_their_order() -> None:
    batch, rng = images(40), np.random.default_rng(0)
    colours = [OPERATIONS.index(name) for name in ("brightness", "saturation", "contrast", "solarize", "autocontrast")]
    operations, levels = rng.choice([0, *colours], (40, 3)), rng.uniform(-1, 1, (40, 3))
    output = apply_operations(batch, operations, levels)
    for image, changed, numbers, values in zip(batch, output, operations, levels, strict=True):
        expected = image.float()
        for number, level in zip(numbers, values.tolist(), strict=True):
            expected = by_torchvision(expected, OPERATIONS[number], level)
        torch.testing.assert_close(changed, expected, atol=0.05, rtol=0)


def test_a_grey_image_is_changed_as_well() -> None:
    batch, numbers = images(14)[..., :1], np.arange(14)[:, None]
    output = apply_operations(batch, numbers, np.full((14, 1), 0.5))
    assert output.shape == batch.shape
    unchanged = [OPERATIONS[n] for n in range(13) if torch.equal(output[n], batch[n].float())]
    assert unchanged == ["identity", "saturation"]


def test_operations_are_uniform_and_have_the_probability_and_the_magnitude() -> None:
    spec, settings = ImageSpec(HEIGHT, WIDTH, "bilinear"), RandAugment(prob=0.4, num_ops=3, magnitude=15)
    drawn = replace(Augmentation(spec), rand_augment=settings).draw(0, 0, 0, 20_000)
    assert drawn.operations is not None and drawn.levels is not None
    assert drawn.operations.shape == drawn.levels.shape == (20_000, 3)
    assert abs(drawn.operations.any(1).mean() - 0.4) < 0.015
    shares = np.bincount(drawn.operations.ravel(), minlength=14) / (0.4 * 60_000)
    assert len(shares) == len(OPERATIONS) and np.abs(shares[1:] - 1 / 14).max() < 0.006
    assert set(np.abs(drawn.levels).ravel()) == {0.5} and abs(drawn.levels.mean()) < 0.01
