"""Loading of weights from other files into a network."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from timm.models.resnet import ResNet
from timm.models.swin_transformer import WindowAttention
from torch import Tensor
from torch.nn import functional

from reid_tune.errors import InputError
from reid_tune.modeling.network import ReIDNet

__all__ = ["LoadReport", "is_optional", "load_weights"]

# Buffers in older Swin files, which follow from the size.
_DERIVED = ("relative_position_index", "attn_mask")
# Batches counted by a batch norm, on which nothing depends, and a Swin's modulation and a ResNet's non-local blocks,
# which do nothing without them.
_OPTIONAL = re.compile(r"\.num_batches_tracked$|\.semantic_(scale|shift)\.|\.NL_\d\.")


@dataclass(frozen=True)
class LoadReport:
    """Names of tensors, by the outcome of loading.

    Attributes:
        loaded: Copied.
        resized: Copied after a change of their shape.
        unused: In the file only, or with a shape that cannot be changed.
        missing: In the network only.
    """

    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]


def is_optional(name: str) -> bool:
    """Whether a network works without a tensor of this name."""
    return bool(_OPTIONAL.search(name))


@torch.no_grad()
def load_weights(network: ReIDNet, weights: Mapping[str, Tensor], *, hw_ratio: float) -> LoadReport:
    """Copy all weights that fit to the network's dtypes and devices; on an error nothing changes.

    Two kinds of tables are resized bicubically: a Swin's tables of relative positions (each head's (2h - 1) x (2w - 1)
    grid, of a square window h x w in the file) and a ViT's position table. A first convolution of RGB becomes one of
    greyscale by the sum over the channels, which gives the same on an image of three equal channels. One of greyscale
    becomes one of RGB by a third of it for each channel.

    Args:
        network: The network.
        weights: Tensors by the network's names.
        hw_ratio: Height over width of the images that the file's ViT was trained on.

    Raises:
        InputError: A ViT's position table is not a grid of that ratio, or the weights have non-local blocks, and the
            network, a plain ResNet, has none.
    """
    state = network.state_dict()
    fitting: dict[str, Tensor] = {}
    loaded, resized, unused = [], [], []
    for name, value in weights.items():
        if name in state and state[name].shape == value.shape:
            fitting[name] = value
            loaded.append(name)
        elif name in state and (fit := _resize(network, name, value, state[name].shape, hw_ratio)) is not None:
            fitting[name] = fit
            resized.append(name)
        elif not name.endswith(_DERIVED):
            unused.append(name)
    if type(network.backbone) is ResNet and (block := next((name for name in unused if ".NL_" in name), "")):
        raise InputError(f"model.non_local = false: the weights have non-local blocks ({block}, ...); set it to true.")
    for name, value in fitting.items():
        state[name].copy_(value)
    missing = tuple(name for name in state if name not in weights)
    return LoadReport(tuple(loaded), tuple(resized), tuple(unused), missing)


def _resize(network: ReIDNet, name: str, value: Tensor, shape: torch.Size, hw_ratio: float) -> Tensor | None:
    """Return the value in another shape, or None without a rule for it."""
    if value.ndim != len(shape):
        return None
    module = network.get_submodule(name.rpartition(".")[0])
    if isinstance(module, WindowAttention) and name.endswith("relative_position_bias_table"):
        return _resize_window(value.float(), module.window_size, shape)
    grid = getattr(getattr(network.backbone, "patch_embed", None), "grid_size", None)
    if name == "backbone.pos_embed" and grid is not None and value.ndim == 3:
        return _resize_positions(value.float(), grid, shape, hw_ratio)
    if value.ndim == 4:
        return _change_channels(value.float(), shape)
    return None


def _resize_window(table: Tensor, window: tuple[int, int], shape: torch.Size) -> Tensor | None:
    """Resize a table [rows, heads] of a square window to another window."""
    side = math.isqrt(len(table))
    if side * side != len(table) or table.shape[1] != shape[1]:
        return None
    grid = table.T.reshape(1, -1, side, side)
    return _bicubic(grid, 2 * window[0] - 1, 2 * window[1] - 1).reshape(shape[1], shape[0]).T


def _resize_positions(table: Tensor, grid: tuple[int, int], shape: torch.Size, hw_ratio: float) -> Tensor | None:
    """Resize a table [1, tokens, C] to the network's grid; a class token and other prefixes are kept."""
    prefix = shape[1] - grid[0] * grid[1]
    patches = table.shape[1] - prefix
    if patches < 1 or table.shape[2] != shape[2]:
        return None
    rows = round(math.sqrt(patches * hw_ratio))
    if rows < 1 or patches % rows:
        raise InputError(
            f"model.pretrain_hw_ratio = {hw_ratio:g}: the position table of the pretrained weights has {patches} "
            "patches, which are not a grid of that ratio; set it to height over width of the images of its training."
        )
    prefix_rows, patch_rows = table[:, :prefix], table[:, prefix:]
    old = patch_rows.transpose(1, 2).reshape(1, shape[2], rows, patches // rows)
    return torch.cat([prefix_rows, _bicubic(old, *grid).flatten(2).transpose(1, 2)], dim=1)


def _change_channels(kernel: Tensor, shape: torch.Size) -> Tensor | None:
    """Change a kernel [filters, 3, h, w] to one channel, or one channel to three."""
    if kernel[:, :1].shape != (shape[0], 1, *shape[2:]):
        return None
    if (kernel.shape[1], shape[1]) == (3, 1):
        return kernel.sum(1, keepdim=True)
    if (kernel.shape[1], shape[1]) == (1, 3):
        return kernel.expand(shape) / 3
    return None


def _bicubic(grid: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
