"""Changes of the reference in a Swin: windows of a padded map, and semantic modulation."""

import math
from typing import Any

import torch
from timm.models.swin_transformer import PatchMerging, SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn
from torch.nn import functional

from reid_tune.config.model import Model

__all__ = ["PaddedBlock", "SemanticMerging", "adapt_swin", "swin_options"]

_PATCH = 4


def swin_options(model: Model) -> dict[str, Any]:
    """Return timm's options for a Swin with whole windows everywhere, for images padded to whole patches."""
    height, width = (-(-size // _PATCH) * _PATCH for size in (model.input_height, model.input_width))
    return {"always_partition": True, "img_size": (height, width)}


def adapt_swin(backbone: SwinTransformer, model: Model) -> None:
    """Pad images and maps at the bottom and the right as the reference does, and add semantic modulation.

    timm's stages offer no choice of the classes of their blocks, so the classes of the blocks are replaced.
    """
    backbone.patch_embed.strict_img_size = False
    backbone.patch_embed.dynamic_img_pad = True
    for stage in backbone.layers:
        for block in stage.blocks:
            block.__class__ = PaddedBlock
    if model.semantic_weight >= 0:
        for stage in backbone.layers[1:]:
            stage.downsample.__class__ = SemanticMerging
            stage.downsample.add_tables(model.semantic_weight)


class PaddedBlock(SwinTransformerBlock):
    """A Swin block that pads the map with zeros to whole windows and then shifts it.

    timm shifts first: shifted windows then hold other tokens wherever the map is not a multiple of the window.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        down, right = -height % self.window_size[0], -width % self.window_size[1]
        attended: Tensor = super()._attn(functional.pad(x, (0, 0, 0, right, 0, down)))
        return attended[:, :height, :width]


class SemanticMerging(PatchMerging):
    """Merging of patches for the next stage, then x <- x softplus(Ws s + bs) + (Wb s + bb) with s = [w, 1 - w].

    This is the modulation of Chen et al. (CVPR 2023, SOLIDER). Its tables come from pretrained weights and are not
    trained; without any it is exactly the identity: Ws = Wb = 0, bb = 0, softplus(bs) = 1.
    """

    def add_tables(self, weight: float) -> None:
        """Add the tables without drawing random numbers.

        Args:
            weight: Semantic weight w.
        """
        device = self.reduction.weight.device
        self.register_buffer("semantics", torch.tensor([weight, 1 - weight], device=device), persistent=False)
        self.semantic_scale = _constant(self.out_dim, math.log(math.e - 1), device)
        self.semantic_shift = _constant(self.out_dim, 0, device)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, H, W, C] to [batch, (H + 1) // 2, (W + 1) // 2, next stage's C]."""
        merged: Tensor = super().forward(x)
        scale = functional.softplus(self._row(self.semantic_scale))
        return merged * scale.to(merged.dtype) + self._row(self.semantic_shift).to(merged.dtype)

    def _row(self, table: nn.Linear) -> Tensor:
        """Return the table's row [C] for s, in float32 also under autocast, where a matrix product would not be."""
        return (table.weight * self.semantics).sum(1) + table.bias


def _constant(channels: int, bias: float, device: torch.device) -> nn.Linear:
    table = torch.nn.utils.skip_init(nn.Linear, 2, channels, device=device)
    nn.init.zeros_(table.weight)
    nn.init.constant_(table.bias, bias)
    return table.requires_grad_(False)
