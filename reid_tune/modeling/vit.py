"""Overlapping patches of a vision transformer."""

from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from reid_tune.config.model import Model
from reid_tune.errors import InputError

__all__ = ["set_patch_stride"]


def set_patch_stride(backbone: nn.Module, model: Model) -> None:
    """Apply `stride_size`: (H - patch) // stride + 1 rows, columns alike (He et al., ICCV 2021, TransReID).

    The position table gets an untrained row for each patch of the new grid.

    Raises:
        InputError: The stride is larger than the patch, or is set for a ViT whose patches do not come from one
            convolution.
    """
    stride = model.stride_size
    if not (isinstance(backbone, VisionTransformer) and type(backbone.patch_embed) is PatchEmbed):
        if stride != Model.model_fields["stride_size"].default:
            raise InputError(
                f"model.stride_size = {list(stride)} is not supported by {model.backbone}: remove it, or choose a "
                "plain ViT such as vit_base_patch16_224."
            )
        return
    embed = backbone.patch_embed
    if any(step > patch for step, patch in zip(stride, embed.patch_size, strict=True)):
        height, width = embed.patch_size
        raise InputError(
            f"model.stride_size = {list(stride)} leaves gaps between the patches of {model.backbone}: set it to "
            f"[{height}, {width}] or less."
        )
    if stride != embed.patch_size:
        _overlap(backbone, stride)


def _overlap(backbone: VisionTransformer, stride: tuple[int, int]) -> None:
    embed = backbone.patch_embed
    old_patches = embed.num_patches
    embed.proj.stride = stride
    embed.grid_size = tuple(
        max((size - patch) // step + 1, 0)
        for size, patch, step in zip(embed.img_size, embed.patch_size, stride, strict=True)
    )
    embed.num_patches = embed.grid_size[0] * embed.grid_size[1]
    if backbone.pos_embed is not None:
        _, tokens, channels = backbone.pos_embed.shape
        backbone.pos_embed = nn.Parameter(
            backbone.pos_embed.new_empty(1, tokens - old_patches + embed.num_patches, channels)
        )
        nn.init.trunc_normal_(backbone.pos_embed, std=0.02)
