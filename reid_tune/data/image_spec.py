"""How images are prepared for a model: size, resizing, channels and normalisation."""

from dataclasses import dataclass
from typing import Literal

from reid_tune.config.experiment import Experiment

__all__ = ["Channels", "ImageSpec", "Interpolation", "interpolation_for"]

Interpolation = Literal["bilinear", "bicubic"]
Channels = Literal[1, 3]


@dataclass(frozen=True)
class ImageSpec:
    """Preparation of the images that a model takes, the same in training, evaluation and deployment.

    Attributes:
        height, width: Size in pixels that images are resized to.
        interpolation: Filter of the resizing.
        channels: 3 for RGB, 1 for greyscale.
        mean, std: Normalisation of each channel in 0..1: the model's input is (value / 255 - mean) / std. The defaults
            only scale to 0..1.
    """

    height: int
    width: int
    interpolation: Interpolation
    channels: Channels = 3
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> "ImageSpec":
        """Return the preparation that an experiment spec describes."""
        model, dataset = experiment.model, experiment.dataset
        return cls(
            model.input_height,
            model.input_width,
            interpolation_for(model.backbone),
            model.input_channels,
            dataset.pixel_mean[: model.input_channels],
            dataset.pixel_std[: model.input_channels],
        )

    @property
    def decoding(self) -> tuple[int, int, Interpolation, bool]:
        """Height, width, interpolation and greyscale, which decide the decoded pixels; normalisation does not."""
        return self.height, self.width, self.interpolation, self.is_greyscale

    @property
    def is_greyscale(self) -> bool:
        """Whether images are decoded as greyscale."""
        return self.channels == 1


def interpolation_for(backbone: str) -> Interpolation:
    """Return the resizing filter of a backbone."""
    return "bicubic" if backbone.startswith("swin") else "bilinear"
