"""Changes of the reference in a ResNet: a finer last map, and no ReLU after the first batch norm."""

from timm.layers import BlurPool2d
from torch import nn

from reid_tune.config.model import Model
from reid_tune.config.unused_fields import is_vit
from reid_tune.errors import InputError

__all__ = ["adapt_resnet"]


def adapt_resnet(backbone: nn.Module, model: Model) -> None:
    """Apply `last_stride` to any timm model with `resnet` in its name, and remove the first ReLU of `resnet_50`.

    Raises:
        InputError: `last_stride` is 1, and the backbone has no last stage as timm's ResNets have.
    """
    if model.backbone == "resnet_50":
        backbone.act1 = nn.Identity()
    if "resnet" in model.backbone and not is_vit(model.backbone) and model.last_stride == 1:
        stage = _last_stage(backbone)
        if stage is None:
            raise InputError(
                f"model.last_stride = 1: {model.backbone} has no last stage whose stride could change; "
                "set model.last_stride to 2."
            )
        _keep_size(stage)


def _last_stage(backbone: nn.Module) -> nn.Module | None:
    modules = dict(backbone.named_modules())
    stages = modules.get("stages")
    if isinstance(stages, nn.Sequential):
        return stages[-1]
    return modules.get("layer4", modules.get("body.layer4"))


def _keep_size(stage: nn.Module) -> None:
    """Set the stride of all layers with stride 2 to 1, so that they keep the size of the map."""
    for layer in stage.modules():
        if isinstance(layer, nn.AvgPool2d) and layer.kernel_size in (2, (2, 2)):
            layer.kernel_size = layer.stride = 1 if layer.kernel_size == 2 else (1, 1)
        elif isinstance(layer, (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d, BlurPool2d)) and layer.stride in (2, (2, 2)):
            layer.stride = 1 if layer.stride == 2 else (1, 1)
