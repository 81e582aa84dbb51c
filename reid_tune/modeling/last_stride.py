"""A last stage that keeps the size of the map (`model.last_stride: 1`)."""

from typing import Any

import torch
from timm.layers import BlurPool2d
from torch import Tensor, nn
from torch.nn import functional

from reid_tune.config.model import Model
from reid_tune.errors import InputError

__all__ = ["set_last_stride"]


class _PaddedConv2d(nn.Conv2d):
    """Convolution with a kernel of 2 x 2, as between the stages of a ConvNeXt, that keeps the size of the map."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(functional.pad(maps, (0, 1, 0, 1)))


def set_last_stride(backbone: nn.Module, model: Model) -> None:
    """Set the strides of the last stage to 1: every second value of a layer's output is that with a stride of 2.

    The last stage of a network with `resnet` in its name has timm's name for it. That of another one is what follows
    its second last map in timm's `feature_info`; its map must then have twice the height and width.

    Raises:
        InputError: The backbone has no such stage.
    """
    if "resnet" in model.backbone:
        stage = _last_stage(backbone)
        if stage is None:
            raise _unsupported(model)
        _keep_size([stage])
        return
    before = _map_size(backbone, model)
    changed = _keep_size(_layers_after_second_last_map(backbone))
    after = _map_size(backbone, model) if changed else ()
    # A stride of 2 makes 4 out of 7 as well as of 8.
    if not (before and after) or any(2 * old - new not in (0, 1) for old, new in zip(before, after, strict=True)):
        raise _unsupported(model)


def _unsupported(model: Model) -> InputError:
    return InputError(
        f"model.last_stride = 1: {model.backbone} has no last stage whose stride could change; "
        "set model.last_stride to 2."
    )


def _last_stage(backbone: nn.Module) -> nn.Module | None:
    modules = dict(backbone.named_modules())
    stages = modules.get("stages")
    if isinstance(stages, nn.Sequential):
        return stages[-1]
    return modules.get("layer4", modules.get("body.layer4"))


def _layers_after_second_last_map(backbone: nn.Module) -> list[nn.Module]:
    maps: Any = getattr(backbone, "feature_info", [])
    names = [entry["module"] for entry in maps] if isinstance(maps, list) else []
    modules = list(backbone.named_modules())
    ends = [i for i, (name, _) in enumerate(modules) if len(names) > 1 and f"{name}.".startswith(f"{names[-2]}.")]
    return [module for _, module in modules[ends[-1] + 1 :]] if ends else []


def _keep_size(parts: list[nn.Module]) -> int:
    """Set the stride of all layers with stride 2 to 1, so that they keep the size of the map; return their number."""
    changed = 0
    for layer in {id(layer): layer for part in parts for layer in part.modules()}.values():
        if isinstance(layer, nn.AvgPool2d) and layer.kernel_size in (2, (2, 2)):
            layer.kernel_size = layer.stride = 1 if layer.kernel_size == 2 else (1, 1)
            changed += 1
        elif isinstance(layer, (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d, BlurPool2d)) and layer.stride in (2, (2, 2)):
            layer.stride = 1 if layer.stride == 2 else (1, 1)
            changed += 1
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (2, 2) and layer.padding == (0, 0):
                layer.__class__ = _PaddedConv2d  # the weights keep their names
    return changed


@torch.no_grad()
def _map_size(backbone: nn.Module, model: Model) -> tuple[int, ...]:
    """Return height and width of the last map; empty for a network without one."""
    compute_map: Any = getattr(backbone.eval(), "forward_features", None)
    images = torch.zeros(1, model.input_channels, model.input_height, model.input_width)
    try:
        shape = compute_map(images).shape[1:] if compute_map else ()
    except (AssertionError, RuntimeError, ValueError):
        return ()
    if len(shape) != 3:
        return ()
    return tuple(shape[:2] if getattr(backbone, "output_fmt", "NCHW") == "NHWC" else shape[1:])
