from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from reid_tune.data.augment import cpu as on_cpu
from reid_tune.data.augment import gpu as on_device
from reid_tune.data.augment.augmentation import Augmentation
from reid_tune.data.augment.params import NOISE_OFFSETS, AugmentationParams
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.normalisation import normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.226, 0.3, 0.25)
HEIGHT, WIDTH = 40, 24
SPEC = ImageSpec(HEIGHT, WIDTH, "bilinear", 3, MEAN, STD)
GREY = replace(SPEC, channels=1)
AUGMENTATION = Augmentation(SPEC, padding=5)


def images(count: int) -> Tensor:
    return torch.randint(
        0, 256, (count, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def by_torchvision(image: Tensor, decisions: AugmentationParams, index: int, padding: int) -> Tensor:
    """One image by the usual functions; erased pixels are nan."""
    planes = image.permute(2, 0, 1)
    if decisions.flip[index]:
        planes = reference.hflip(planes)
    top, left = decisions.crop[index].tolist()
    planes = reference.crop(reference.pad(planes, [padding] * 4), top, left, HEIGHT, WIDTH)
    planes = reference.normalize(planes.float() / 255, MEAN, STD)
    top, left, height, width = decisions.boxes[index].tolist()
    return reference.erase(planes, top, left, height, width, torch.tensor(float("nan"))) if height else planes


@pytest.mark.parametrize("padding", [0, 5, 10])
@pytest.mark.parametrize("erasing", ["mean", "noise"])
def test_apply_equals_torchvision_per_image(erasing: str, padding: int) -> None:
    augmentation = replace(AUGMENTATION, erasing=erasing, padding=padding)
    batch, decisions = images(48), augmentation.draw(seed=1, epoch=2, step=3, batch=48)
    output = augmentation.apply(batch, decisions)
    expected = torch.stack([by_torchvision(image, decisions, i, padding) for i, image in enumerate(batch)])
    erased = expected.isnan()
    assert output.shape == (48, 3, HEIGHT, WIDTH) and output.dtype == torch.float32
    assert 0.02 < erased.float().mean() < 0.3
    torch.testing.assert_close(output[~erased], expected[~erased], atol=2e-6, rtol=0)
    if erasing == "mean":
        assert (output[erased] == 0).all()
    else:
        assert abs(output[erased].mean()) < 0.05 and abs(output[erased].std() - 1) < 0.05


def test_forced_decisions() -> None:
    decisions = AugmentationParams(
        flip=np.array([True, False, True]),
        crop=np.array([[0, 10], [10, 0], [5, 5]]),
        boxes=np.array([[0, 0, HEIGHT - 1, WIDTH - 1], [HEIGHT - 1, WIDTH - 1, 1, 1], [0, 0, 0, 0]]),
        noise=np.array([0, NOISE_OFFSETS - 1, 7]),
    )
    batch = images(3)
    expected = torch.stack([by_torchvision(image, decisions, i, 5) for i, image in enumerate(batch)])
    output = AUGMENTATION.apply(batch, decisions)
    torch.testing.assert_close(output, expected.nan_to_num(0.0), atol=2e-6, rtol=0)
    noisy = replace(AUGMENTATION, erasing="noise").apply(batch, decisions)
    assert torch.equal(noisy[~expected.isnan()], output[~expected.isnan()])
    assert noisy[0, :, : HEIGHT - 1, : WIDTH - 1].unique().numel() > 2000


def test_noise_depends_on_its_offset_alone() -> None:
    augmentation = replace(AUGMENTATION, padding=0, erasing="noise")
    boxes, noise = np.array([[2, 3, 30, 20]] * 3), np.array([5, 5, 6])
    decisions = AugmentationParams(np.zeros(3, bool), np.zeros((3, 2), int), boxes, noise)
    output = augmentation.apply(images(3), decisions)[:, :, 2:32, 3:23]
    assert torch.equal(output[0], output[1])
    assert not torch.isclose(output[0], output[2]).any(dim=0).all()


@pytest.mark.parametrize("erasing", ["mean", "noise"])
def test_slices_of_workers_make_the_whole_batch(erasing: str) -> None:
    augmentation = replace(AUGMENTATION, erasing=erasing)
    batch, decisions = images(30), augmentation.draw(5, 6, 7, 30)
    whole = augmentation.apply(batch, decisions)
    bounds = [0, 1, 11, 30]
    parts = [
        augmentation.apply(batch[start:stop], decisions.slice(start, stop))
        for start, stop in zip(bounds, bounds[1:], strict=False)
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(augmentation.apply(batch, decisions), whole)


def test_the_input_is_left_alone() -> None:
    batch = images(8)
    copy = batch.clone()
    AUGMENTATION.apply(batch, AUGMENTATION.draw(0, 0, 0, 8))
    assert torch.equal(batch, copy)


def test_an_augmentation_without_effect_is_the_normalisation() -> None:
    batch = images(6)
    augmentation = replace(AUGMENTATION, flip=0.0, padding=0, erase=0.0)
    assert torch.equal(augmentation.apply(batch, augmentation.draw(0, 0, 0, 6)), normalise(batch, SPEC))


@pytest.mark.parametrize("padding", [0, 5])
def test_a_grey_batch_is_the_first_channel_of_a_batch_in_colour(padding: int) -> None:
    batch = images(24)[..., :1].expand(-1, -1, -1, 3).contiguous()
    colour = replace(AUGMENTATION, image_spec=replace(SPEC, mean=(MEAN[0],) * 3, std=(STD[0],) * 3), padding=padding)
    decisions = colour.draw(1, 2, 3, 24)
    output = replace(AUGMENTATION, padding=padding, image_spec=GREY).apply(batch, decisions)
    assert output.shape == (24, 1, HEIGHT, WIDTH)
    assert torch.equal(output, colour.apply(batch, decisions)[:, :1])


def test_grey_noise_fills_the_box_alone() -> None:
    augmentation = replace(AUGMENTATION, erasing="noise", image_spec=GREY)
    batch, decisions = images(24), augmentation.draw(1, 2, 3, 24)
    difference = augmentation.apply(batch, decisions) - replace(AUGMENTATION, image_spec=GREY, erase=0.0).apply(
        batch, replace(decisions, boxes=np.zeros((24, 4), int))
    )
    for change, (top, left, height, width) in zip(difference[:, 0], decisions.boxes.tolist(), strict=True):
        assert (change[top : top + height, left : left + width] != 0).all()
        assert torch.count_nonzero(change) == height * width


@pytest.mark.gpu
@pytest.mark.parametrize("erasing", ["mean", "noise"])
def test_the_device_does_not_matter(erasing: str) -> None:
    augmentation = replace(AUGMENTATION, erasing=erasing)
    batch, decisions = images(32), augmentation.draw(0, 1, 2, 32)
    on_gpu = augmentation.apply(batch.cuda(), decisions)
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), augmentation.apply(batch, decisions))


@pytest.mark.parametrize("erasing", ["mean", "noise"])
@pytest.mark.parametrize(("channels", "padding"), [(3, 10), (3, 0), (1, 4)])
def test_both_ways_of_moving_pixels_give_the_same_bits(erasing: str, channels: int, padding: int) -> None:
    augmentation = replace(AUGMENTATION, erasing=erasing, image_spec=replace(SPEC, channels=channels), padding=padding)
    batch = images(9)[..., :channels]
    decisions = augmentation.draw(3, 1, 4, 9)
    assert 0 < decisions.flip.sum() < 9 and (decisions.boxes[:, 2] > 0).any()
    cropped = on_cpu.flip_and_crop(batch, decisions, padding)
    assert torch.equal(on_device.flip_and_crop(batch, decisions, padding), cropped)
    erased = [cropped.float() for _ in range(2)]
    on_cpu.erase(erased[0], decisions, erasing)
    on_device.erase(erased[1], decisions, erasing)
    assert torch.equal(erased[0], erased[1]) and not torch.equal(erased[0], cropped.float())
