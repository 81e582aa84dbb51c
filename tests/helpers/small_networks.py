"""Small networks of the families that timm's `test_...` models leave out; to import this makes them known to timm."""

from typing import Any

from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer, _create_swin_transformer
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer

__all__ = ["SMALL_SWIN", "SMALL_VIT"]

SMALL_SWIN = "swin_test"
SMALL_VIT = "vit_test"


@register_model
def swin_test(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """A Swin-T of a quarter of its width."""
    sizes = {"patch_size": 4, "window_size": 7, "embed_dim": 24, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
    return _create_swin_transformer(SMALL_SWIN, pretrained=pretrained, **sizes | options)


@register_model
def vit_test(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """A ViT-Ti of a quarter of its width and depth."""
    sizes = {"patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
    return _create_vision_transformer(SMALL_VIT, pretrained=pretrained, **sizes | options)
