"""Patches, greyscale, blur, affine transforms and erased boxes against torchvision or loops, image by image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from reid_tune.config.augmentation import Affine, Blur, ErasingShape, RandAugment, RandomPatch
from reid_tune.data.augment.augmentation import Augmentation
from reid_tune.data.augment.draws import draw_matrices
from reid_tune.data.augment.transforms import blur_images, make_boxes_grey, make_grey, paste_patches, warp_images
from reid_tune.data.image_spec import ImageSpec

HEIGHT, WIDTH = 40, 24
SPEC = ImageSpec(HEIGHT, WIDTH, "bilinear", 3, (0.485, 0.456, 0.406), (0.226, 0.3, 0.25))
PLAIN = Augmentation(SPEC, padding=3)
ALL = replace(
    PLAIN,
    shape=ErasingShape(min_area=0.05, max_area=0.2, min_aspect=0.5, count=3),
    patch=RandomPatch(prob=0.6, min_area=0.1, max_area=0.4, min_aspect=0.5),
    rand_augment=RandAugment(prob=0.7, num_ops=3),
    affine=Affine(prob=0.5, degrees=30, translate=0.1, scale=0.2, shear=20),
    grey=0.3,
    local_grey=0.5,
    blur=Blur(prob=0.5, sigma=1.5),
)
MANY = 5000


def images(count: int) -> Tensor:
    return torch.randint(
        0, 256, (count, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def planes_of(batch: Tensor) -> Tensor:
    return batch.permute(0, 3, 1, 2).float()


def test_grey_images_have_the_luma_in_all_channels() -> None:
    batch, selected = images(6), np.array([True, False, True, True, False, False])
    output = make_grey(batch, selected)
    for image, grey, is_grey in zip(batch, output, selected, strict=True):
        expected = reference.rgb_to_grayscale(image.permute(2, 0, 1).float(), 3).permute(1, 2, 0)
        torch.testing.assert_close(grey, expected if is_grey else image.float(), atol=1e-3, rtol=0)


def test_grey_boxes_change_nothing_outside() -> None:
    batch, boxes = images(3), np.array([[2, 3, 20, 10], [0, 0, 0, 0], [39, 23, 1, 1]])
    expected = batch.float()
    for image, (top, left, height, width) in zip(expected, boxes.tolist(), strict=True):
        for row in range(top, top + height):
            for column in range(left, left + width):
                red, green, blue = image[row, column].tolist()
                image[row, column] = 0.2989 * red + 0.587 * green + 0.114 * blue
    torch.testing.assert_close(make_boxes_grey(batch, boxes), expected, atol=1e-3, rtol=0)


def test_a_patch_is_a_box_of_another_image() -> None:
    batch, drawn = images(12), ALL.draw(1, 2, 3, 12)
    expected = batch.clone()
    boxes = zip(drawn.patches.tolist(), drawn.patch_sources.tolist(), strict=True)
    for number, ((top, left, height, width), (other, source_top, source_left)) in enumerate(boxes):
        assert other != number
        box = batch[other, source_top : source_top + height, source_left : source_left + width]
        expected[number, top : top + height, left : left + width] = box
    assert 0 < len(drawn.patch_images) < 12
    output = paste_patches(batch.clone(), batch[drawn.patch_images], drawn.patches, drawn.patch_sources)
    assert torch.equal(output, expected)


def test_patches_have_area_aspect_and_sources() -> None:
    drawn = replace(ALL, image_spec=replace(SPEC, height=256, width=128)).draw(0, 0, 0, MANY)
    pasted = drawn.patches[:, 2] > 0
    assert abs(pasted.mean() - 0.6) < 0.03
    (top, left, height, width), (_, source_top, source_left) = drawn.patches[pasted].T, drawn.patch_sources[pasted].T
    area, aspect = height * width / (256 * 128), height / width
    assert 0.098 < area.min() < 0.11 and 0.38 < area.max() < 0.41
    assert 0.48 < aspect.min() < 0.55 and 1.9 < aspect.max() < 2.1
    for first, length, size in [(top, height, 256), (source_top, height, 256), (left, width, 128)]:
        assert (first >= 0).all() and (first + length <= size).all()
    assert (source_left + width <= 128).all() and np.ptp(drawn.patch_sources[:, 0]) == MANY - 1


@pytest.mark.parametrize("largest", [0.5, 1.5, 10.0])
def test_the_blur_equals_torchvision(largest: float) -> None:
    batch, sigmas = images(4), np.array([largest, 0.0, largest / 10, largest / 2])
    output = planes_of(blur_images(batch, sigmas, largest))
    size = 2 * min(int(np.ceil(3 * largest)), WIDTH - 1) + 1
    for image, blurred, sigma in zip(planes_of(batch), output, sigmas, strict=True):
        expected = reference.gaussian_blur(image, [size, size], [sigma, sigma]) if sigma else image
        torch.testing.assert_close(blurred, expected, atol=2e-3, rtol=0)


def test_affine_transforms_equal_torchvision() -> None:
    batch, affine = images(20), Affine(prob=1.0, degrees=30, translate=0.0, scale=0.2, shear=20)
    matrices = draw_matrices(np.random.default_rng(5), 20, HEIGHT, WIDTH, affine)
    rng = np.random.default_rng(5)
    rng.random(20)  # which images are transformed
    draws = rng.uniform(-1, 1, (5, 20)).T
    output = planes_of(warp_images(batch, matrices))
    for image, warped, (angle, shear, scale, *_) in zip(planes_of(batch), output, draws.tolist(), strict=True):
        degrees, shears, bilinear = angle * 30, [shear * 20, 0.0], reference.InterpolationMode.BILINEAR
        expected = reference.affine(image, degrees, [0, 0], 1 + scale * 0.2, shears, bilinear)
        torch.testing.assert_close(warped, expected, atol=0.05, rtol=0)


def test_a_shift_moves_whole_pixels() -> None:
    matrices = draw_matrices(np.random.default_rng(5), 9, 40, 24, Affine(prob=1, degrees=0, scale=0, shear=0))
    assert np.array_equal(matrices[:, :, :2], np.tile(np.eye(2), (9, 1, 1)))
    assert (np.abs(matrices[:, :, 2]) <= [0.05 * 24, 0.05 * 40]).all()
    matrices[:, :, 2] = [-3, 5]  # three columns to the right, five rows up
    batch = images(9)
    output = warp_images(batch, matrices)
    torch.testing.assert_close(output[:, :-5, 3:], batch[:, 5:, :-3].float(), atol=0.01, rtol=0)
    assert output[:, -5:].abs().max() < 0.01 and output[:, :, :3].abs().max() < 0.01


def by_loop(image: Tensor, matrix: np.ndarray) -> Tensor:
    """One image [H, W, 3] by bilinear interpolation, pixel by pixel."""
    output, centre = torch.zeros(image.shape, dtype=torch.float64), np.array([WIDTH - 1, HEIGHT - 1]) / 2
    for row in range(HEIGHT):
        for column in range(WIDTH):
            x, y = matrix @ np.array([column - centre[0], row - centre[1], 1.0]) + centre
            for j in (int(np.floor(y)), int(np.floor(y)) + 1):
                for i in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= i < WIDTH and 0 <= j < HEIGHT:
                        output[row, column] += image[j, i].double() * (1 - abs(x - i)) * (1 - abs(y - j))
    return output.float()


def test_warping_equals_a_loop_over_pixels() -> None:
    batch, matrices = images(6), ALL.draw(1, 2, 3, 6).matrices
    assert 0 < matrices.any((1, 2)).sum() < 6
    output = warp_images(batch, matrices)
    for image, warped, matrix in zip(batch, output, matrices, strict=True):
        torch.testing.assert_close(warped, by_loop(image, matrix) if matrix.any() else image.float(), atol=0.05, rtol=0)


def test_new_transforms_leave_the_other_draws_as_they_are() -> None:
    changed = replace(PLAIN, affine=ALL.affine, grey=0.3, blur=ALL.blur)
    one, other = changed.draw(1, 2, 3, 64), PLAIN.draw(1, 2, 3, 64)
    for name in ("flip", "crop", "boxes", "noise"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    everything = ALL.draw(1, 2, 3, 64)
    for name in ("matrices", "grey", "sigmas"):
        assert np.array_equal(getattr(everything, name), getattr(one, name))
    assert one.grey_boxes is None and one.more_boxes is None and one.patches is None and one.operations is None


def test_probabilities_and_ranges_of_the_draws() -> None:
    drawn = ALL.draw(0, 0, 0, MANY)
    assert abs(drawn.grey.mean() - 0.3) < 0.03
    assert abs((drawn.grey_boxes[:, 2] > 0).mean() - 0.5) < 0.03
    sigmas = drawn.sigmas[drawn.sigmas > 0]
    assert abs(len(sigmas) / MANY - 0.5) < 0.03 and sigmas.min() >= 0.15 and sigmas.max() <= 1.5
    matrices = drawn.matrices[drawn.matrices.any((1, 2))]
    assert abs(len(matrices) / MANY - 0.5) < 0.03
    scales = np.linalg.det(matrices[:, :, :2]) ** -0.5
    assert 0.8 <= scales.min() < 0.82 and 1.18 < scales.max() <= 1.2


@pytest.mark.parametrize("erasing", ["mean", "noise"])
def test_boxes_have_area_aspect_and_count(erasing: str) -> None:
    drawn = replace(ALL, erasing=erasing, image_spec=replace(SPEC, height=256, width=128)).draw(0, 0, 0, MANY)
    erased = drawn.boxes[:, 2] > 0
    assert drawn.more_boxes.shape == (MANY, 2, 4) and not drawn.more_boxes[~erased].any()
    top, left, height, width = np.concatenate([drawn.boxes[erased], *drawn.more_boxes[erased].swapaxes(0, 1)]).T
    assert (height > 0).all() and (top + height <= 256).all() and (left + width <= 128).all()
    area, aspect = height * width / (256 * 128), height / width
    assert 0.048 < area.min() < 0.06 and 0.19 < area.max() < 0.205
    assert 0.48 < aspect.min() < 0.55 and 1.9 < aspect.max() < 2.1


def test_all_boxes_are_erased_and_nothing_else() -> None:
    augmentation = replace(PLAIN, erase=1.0, shape=ALL.shape)
    batch, drawn = images(12), augmentation.draw(1, 2, 3, 12)
    expected = augmentation.apply(batch, replace(drawn, boxes=np.zeros((12, 4), int), more_boxes=None))
    for image, boxes in zip(expected, np.concatenate([drawn.boxes[:, None], drawn.more_boxes], 1), strict=True):
        for top, left, height, width in boxes.tolist():
            image[:, top : top + height, left : left + width] = 0
    assert torch.equal(augmentation.apply(batch, drawn), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_slices_of_workers_make_the_whole_batch(channels: int) -> None:
    augmentation = replace(ALL, image_spec=replace(SPEC, channels=channels))
    batch, drawn = images(30), augmentation.draw(5, 6, 7, 30)

    def apply(start: int, stop: int) -> Tensor:
        part = drawn.slice(start, stop)
        return augmentation.apply(torch.cat([batch[start:stop], batch[part.patch_images]]), part)

    copy, whole = batch.clone(), apply(0, 30)
    parts = [apply(0, 1), apply(1, 11), apply(11, 30)]
    assert torch.equal(torch.cat(parts), whole) and torch.equal(batch, copy)
    assert whole.shape == (30, channels, HEIGHT, WIDTH)


@pytest.mark.gpu
def test_the_device_does_not_matter() -> None:
    drawn = ALL.draw(0, 1, 2, 32)
    batch = torch.cat([images(32), images(32)[drawn.patch_images]])
    torch.testing.assert_close(ALL.apply(batch.cuda(), drawn).cpu(), ALL.apply(batch, drawn), atol=1e-4, rtol=0)
