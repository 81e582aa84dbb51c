from typing import Any

import pytest

from reid_tune.config.load import build_experiment
from reid_tune.data.image_spec import ImageSpec, interpolation_for


def test_the_backbone_chooses_the_interpolation() -> None:
    assert interpolation_for("swin_tiny_patch4_window7_224") == "bicubic"
    assert interpolation_for("resnet_50") == interpolation_for("vit_tiny_patch16_224") == "bilinear"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ImageSpec(64, 32, "bilinear", 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
        ({"model.input_channels": 1}, ImageSpec(64, 32, "bilinear", 1, (0.1,), (0.4,))),
    ],
)
def test_a_spec_of_an_experiment_has_one_mean_per_channel(values: dict[str, Any], expected: ImageSpec) -> None:
    size = {"model.input_height": 64, "model.input_width": 32}
    pixels = {"dataset.pixel_mean": [0.1, 0.2, 0.3], "dataset.pixel_std": [0.4, 0.5, 0.6]}
    image_spec = ImageSpec.from_experiment(build_experiment({}, size | pixels | values, "test"))
    assert image_spec == expected
    assert image_spec.is_greyscale == (image_spec.channels == 1)
