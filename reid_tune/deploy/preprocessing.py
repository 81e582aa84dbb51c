"""How crops become what a deployed model takes, by the texts that it carries."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
import torch

from reid_tune.config.tasks import InputLayout
from reid_tune.data.image_spec import Channels, ImageSpec, Interpolation
from reid_tune.data.normalisation import normalise
from reid_tune.deploy.export_options import ExportOptions

__all__ = ["Preprocessing"]


@dataclass(frozen=True)
class Preprocessing:
    """What a model's input must look like.

    Attributes:
        image_spec: Size, resizing, channels and normalisation of the images.
        layout: Layout of the input tensor, which says whether the client normalises, see `ExportOptions`.
    """

    image_spec: ImageSpec
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
        image_spec = ImageSpec(height, width, cast(Interpolation, interpolation), cast(Channels, channels), mean, std)
        return cls(image_spec, layout)

    def prepare(self, crops: np.ndarray) -> np.ndarray:
        """What the model takes: one with `uint8_nhwc` normalises, so nobody else may."""
        if self.layout == "uint8_nhwc":
            return np.ascontiguousarray(crops[..., : self.image_spec.channels])
        return normalise(torch.from_numpy(np.ascontiguousarray(crops)), self.image_spec).contiguous().numpy()


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
