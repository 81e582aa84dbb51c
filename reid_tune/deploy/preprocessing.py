"""Options and preprocessing of an exported model, and the metadata that carry both in its file."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
import torch

from reid_tune.config.task_sections import ExportPrecision, InputLayout
from reid_tune.data.image_spec import Channels, ImageSpec, Interpolation
from reid_tune.data.normalisation import normalise

__all__ = ["DEFAULT", "ExportOptions", "Preprocessing", "image_metadata"]


@dataclass(frozen=True)
class ExportOptions:
    """Options of an exported file.

    Attributes:
        layout: `float_nchw`, normalised images, float32 [batch, channels, H, W]; or `uint8_nhwc`, the pixels of resized
            images, uint8 [batch, H, W, channels], which the graph normalises.
        precision: Precision of weights and arithmetic.
        l2_normalized: Whether the embeddings have norm 1.
    """

    layout: InputLayout = "float_nchw"
    precision: ExportPrecision = "fp32"
    l2_normalized: bool = False

    def metadata(self) -> dict[str, str]:
        """Return the metadata `input_layout`, `precision`, and `l2_normalized`, true or false."""
        return {
            "input_layout": self.layout,
            "precision": self.precision,
            "l2_normalized": json.dumps(self.l2_normalized),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "ExportOptions":
        """Return the options that a file's metadata describe.

        Raises:
            KeyError: a key is missing.
            ValueError: a value is unknown.
        """
        layout, precision = metadata["input_layout"], metadata["precision"]
        if layout not in get_args(InputLayout) or precision not in get_args(ExportPrecision):
            raise ValueError(f"{layout}, {precision}")
        l2_normalized = {"true": True, "false": False}.get(metadata["l2_normalized"])
        if l2_normalized is None:
            raise ValueError(metadata["l2_normalized"])
        return cls(cast(InputLayout, layout), cast(ExportPrecision, precision), l2_normalized)


DEFAULT = ExportOptions()


@dataclass(frozen=True)
class Preprocessing:
    """Preparation of crops for an exported model.

    Attributes:
        image_spec: Size, resizing, channels and normalisation of the images.
        layout: Layout of the input tensor, which says whether the client normalises, see `ExportOptions`.
    """

    image_spec: ImageSpec
    layout: InputLayout

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Preprocessing":
        """Return the preprocessing that a model's metadata describe.

        Raises:
            KeyError: a key is missing.
            ValueError: a value is invalid.
        """
        height, width, channels = (int(metadata[key]) for key in ("height", "width", "channels"))
        mean, std = (_parse_numbers(metadata[key], channels) for key in ("mean", "std"))
        interpolation = metadata["interpolation"]
        is_known = channels in get_args(Channels) and interpolation in get_args(Interpolation)
        if not is_known or min(height, width) < 1 or min(std) <= 0:
            raise ValueError(f"{height}x{width}, {channels} channels, std {std}, interpolation {interpolation!r}")
        image_spec = ImageSpec(height, width, cast(Interpolation, interpolation), cast(Channels, channels), mean, std)
        return cls(image_spec, ExportOptions.from_metadata(metadata).layout)

    def prepare(self, crops: np.ndarray) -> np.ndarray:
        """Return the model's input, which is not normalised for `uint8_nhwc`, as the graph does that.

        Args:
            crops: [n, height, width, 3] uint8, RGB or greyscale in three equal channels.
        """
        if self.layout == "uint8_nhwc":
            return np.ascontiguousarray(crops[..., : self.image_spec.channels])
        return normalise(torch.from_numpy(np.ascontiguousarray(crops)), self.image_spec).contiguous().numpy()


def image_metadata(image_spec: ImageSpec) -> dict[str, str]:
    """Return the metadata that `Preprocessing.from_metadata` reads, without the options' part.

    These are `channels` (3 is RGB, 1 is greyscale), `mean`, `std` (JSON lists, a value in 0..1 for each channel),
    `height`, `width` and `interpolation`.
    """
    return {
        "channels": str(image_spec.channels),
        "mean": json.dumps(image_spec.mean),
        "std": json.dumps(image_spec.std),
        "height": str(image_spec.height),
        "width": str(image_spec.width),
        "interpolation": image_spec.interpolation,
    }


def _parse_numbers(text: str, count: int) -> tuple[float, ...]:
    content = json.loads(text)
    if not isinstance(content, list) or len(content) != count:
        raise ValueError(text)
    try:
        values = tuple(float(value) for value in content)
    except (TypeError, OverflowError):
        raise ValueError(text) from None
    if not math.isfinite(sum(values)):
        raise ValueError(text)
    return values
