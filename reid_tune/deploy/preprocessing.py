"""How crops become what a deployed model takes, by the texts that it carries."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
import torch
from torch import Tensor

from reid_tune.config.tasks import InputLayout
from reid_tune.data.augment.augmentation import Channels, RgbValues, normalise
from reid_tune.data.images import Interpolation
from reid_tune.deploy.export_options import ExportOptions

__all__ = ["Preprocessing"]


@dataclass(frozen=True)
class Preprocessing:
    """What a model's input must look like.

    Attributes:
        height, width: Size of the crops in pixels.
        interpolation: How a crop is resized to it.
        channels: 3 for RGB, 1 for grey.
        mean, std: Of each channel in 0..1; the network's input is (value / 255 - mean) / std.
        layout: Who normalises, see `ExportOptions`.
    """

    height: int
    width: int
    interpolation: Interpolation
    channels: Channels
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: InputLayout

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Preprocessing":
        """What a model's texts tell.

        Raises:
            KeyError: one is missing.
            ValueError: one cannot be right.
        """
        height, width, channels = (int(metadata[key]) for key in ("height", "width", "channels"))
        mean, std = (_values(metadata[key], channels) for key in ("mean", "std"))
        interpolation = metadata["interpolation"]
        known = channels in get_args(Channels) and interpolation in get_args(Interpolation)
        if not known or min(height, width) < 1 or min(std) <= 0:
            raise ValueError(f"{height}x{width}, {channels} channels, std {std}, interpolation {interpolation!r}")
        layout = ExportOptions.from_metadata(metadata).layout
        kind, count = cast(Interpolation, interpolation), cast(Channels, channels)
        return cls(height, width, kind, count, mean, std, layout)

    @property
    def grey(self) -> bool:
        """Whether crops are decoded as grey."""
        return self.channels == 1

    def normalise(self, crops: Tensor) -> Tensor:
        """The network's input [n, channels, height, width] float32 of crops [n, height, width, 3] uint8."""
        return normalise(crops, cast(RgbValues, self.mean), cast(RgbValues, self.std), self.channels)

    def prepare(self, crops: np.ndarray) -> np.ndarray:
        """What the model takes: one with `uint8_nhwc` normalises, so nobody else may."""
        if self.layout == "uint8_nhwc":
            return np.ascontiguousarray(crops[..., : self.channels])
        return self.normalise(torch.from_numpy(np.ascontiguousarray(crops))).contiguous().numpy()


def _values(text: str, count: int) -> tuple[float, ...]:
    found = json.loads(text)
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(text)
    try:
        values = tuple(float(value) for value in found)
    except (TypeError, OverflowError):
        raise ValueError(text) from None
    if not math.isfinite(sum(values)):
        raise ValueError(text)
    return values
