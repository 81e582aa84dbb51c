from dataclasses import replace

import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.normalisation import normalise

SPEC = ImageSpec(40, 24, "bilinear", 3, (0.485, 0.456, 0.406), (0.226, 0.3, 0.25))


def images() -> Tensor:
    return torch.randint(0, 256, (6, 40, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_normalise_equals_torchvision() -> None:
    expected = reference.normalize(images().permute(0, 3, 1, 2).float() / 255, SPEC.mean, SPEC.std)
    torch.testing.assert_close(normalise(images(), SPEC), expected, atol=2e-6, rtol=0)


def test_a_greyscale_batch_is_the_first_channel_of_a_batch_in_colour() -> None:
    assert torch.equal(normalise(images(), replace(SPEC, channels=1)), normalise(images(), SPEC)[:, :1])
