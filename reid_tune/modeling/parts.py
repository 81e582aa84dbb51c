"""Horizontal parts of an image, each with a separate feature (`model.parts`)."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Size, Tensor, nn

from reid_tune.config.model import Model
from reid_tune.errors import InputError
from reid_tune.modeling.pooling import Average, GeM

__all__ = ["PartPooling", "PerPart", "build_part_pooling", "per_part"]


class PerPart(nn.ModuleList):
    """One module for each part of features that hold the parts one after the other."""

    def forward(self, features: Tensor) -> Tensor:
        """Map [batch, parts * dimension] to the modules' outputs one after the other, [batch, parts * output]."""
        chunks = features.chunk(len(self), 1)
        return torch.cat([module(chunk) for module, chunk in zip(self, chunks, strict=True)], 1)


def per_part(parts: int, build: Callable[[], nn.Module]) -> nn.Module:
    """Return a separate module for each of several parts, or the one module of a single part."""
    return build() if parts == 1 else PerPart(build() for _ in range(parts))


class PartPooling(nn.Module):
    """Pooling of stripes of equal height of the last map, or of a transformer's tokens on their grid.

    Args:
        parts: Numbers of stripes; with 2 the map is divided into an upper and a lower half.
        poolings: For each stripe of all parts its module from a stripe to [batch, C].
        row_dimension: Dimension of the map that holds its rows: 1 for [batch, H, W, C], 2 for [batch, C, H, W].
        grid: Rows and columns of tokens [batch, prefix + rows * columns, C]; None for a map.
        class_token_part: Index of the stripe whose feature is the first token; None for no such stripe.
    """

    def __init__(
        self,
        parts: Sequence[int],
        poolings: Iterable[nn.Module],
        row_dimension: int,
        grid: tuple[int, int] | None = None,
        class_token_part: int | None = None,
    ) -> None:
        super().__init__()
        self.parts, self.row_dimension, self.grid = tuple(parts), row_dimension, grid
        self.poolings = nn.ModuleList(poolings)
        self.class_token_part = class_token_part

    def forward(self, output: Tensor) -> Tensor:
        """Return the features of all stripes one after the other, from the top, [batch, sum(parts) * C]."""
        maps = output
        if self.grid is not None:
            maps = output[:, -self.grid[0] * self.grid[1] :].unflatten(1, self.grid)
        stripes = [stripe for count in self.parts for stripe in maps.chunk(count, self.row_dimension)]
        features = [pooling(stripe) for pooling, stripe in zip(self.poolings, stripes, strict=True)]
        if self.class_token_part is not None:
            features[self.class_token_part] = output[:, 0].float()
        return torch.cat(features, 1)


def build_part_pooling(backbone: nn.Module, model: Model, shape: Size) -> tuple[PartPooling, int]:
    """Build the pooling of `model.parts`, with a separate exponent of each stripe for GeM.

    Args:
        backbone: Backbone that returns its last map or all its tokens.
        model: Section `model` of the spec.
        shape: Shape of one image's output.

    Returns:
        The pooling and the number of channels of a stripe's feature.

    Raises:
        InputError: The output is neither a map nor tokens on a grid, or a number of stripes does not divide its rows.
    """
    grid = None
    channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
    if len(shape) == 2:
        grid = _token_grid(backbone, shape[0])
        channels_last = True
    if len(shape) not in (2, 3) or (len(shape) == 2 and grid is None):
        raise InputError(
            f"model.parts = {list(model.parts)}: {model.backbone} ends neither in a map nor in tokens on a grid; "
            "remove it, or choose another backbone."
        )
    rows = grid[0] if grid else shape[0 if channels_last else 1]
    _require_divisible(model, rows)
    kind = GeM if model.pooling == "gem" else Average
    poolings = [kind(channels_last) for _ in range(sum(model.parts))]
    class_token_part = None
    if model.pooling == "avg" and 1 in model.parts and grid and getattr(backbone, "cls_token", None) is not None:
        class_token_part = sum(model.parts[: model.parts.index(1)])
    pooling = PartPooling(model.parts, poolings, 1 if channels_last else 2, grid, class_token_part)
    return pooling, shape[-1 if channels_last else 0]


def _token_grid(backbone: nn.Module, tokens: int) -> tuple[int, int] | None:
    """Return the rows and columns of a transformer's patches; None if its tokens are not all of them."""
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    prefix = getattr(backbone, "num_prefix_tokens", 0)
    return tuple(grid) if grid is not None and tokens == prefix + math.prod(grid) else None


def _require_divisible(model: Model, rows: int) -> None:
    wrong = [str(count) for count in model.parts if rows % count]
    if not wrong:
        return
    advice = ""
    if model.input_height % rows == 0:
        height = model.input_height // rows * math.lcm(*model.parts)
        advice = f", or set model.input_height to a multiple of {height}"
    raise InputError(
        f"model.parts = {list(model.parts)}: the last map of {model.backbone} has {rows} rows at model.input_height = "
        f"{model.input_height}, which cannot be divided into {' or '.join(wrong)}: choose other parts{advice}."
    )
