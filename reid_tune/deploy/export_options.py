"""What an exported file takes, computes in and gives."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

from reid_tune.config.tasks import ExportPrecision, InputLayout

__all__ = ["DEFAULT", "ExportOptions"]


@dataclass(frozen=True)
class ExportOptions:
    """How a file serves its network.

    Attributes:
        layout: `float_nchw`, normalised images, float32 [batch, channels, H, W]; or `uint8_nhwc`, the pixels of resized
            images, uint8 [batch, H, W, channels], which the graph normalises.
        precision: Of weights and arithmetic.
        l2_normalized: Whether the embeddings have norm 1.
    """

    layout: InputLayout = "float_nchw"
    precision: ExportPrecision = "fp32"
    l2_normalized: bool = False

    def metadata(self) -> dict[str, str]:
        """The texts in the file: `input_layout`, `precision`, and `l2_normalized`, true or false."""
        return {
            "input_layout": self.layout,
            "precision": self.precision,
            "l2_normalized": json.dumps(self.l2_normalized),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "ExportOptions":
        """The form that a file's texts tell.

        Raises:
            KeyError: one is missing.
            ValueError: one has another value.
        """
        layout, precision = metadata["input_layout"], metadata["precision"]
        if layout not in get_args(InputLayout) or precision not in get_args(ExportPrecision):
            raise ValueError(f"{layout}, {precision}")
        normalized = {"true": True, "false": False}.get(metadata["l2_normalized"])
        if normalized is None:
            raise ValueError(metadata["l2_normalized"])
        return cls(cast(InputLayout, layout), cast(ExportPrecision, precision), normalized)


DEFAULT = ExportOptions()
