"""Colour jitter of whole batches: brightness, contrast, saturation and hue, with factors for each image."""

import numpy as np
import torch
from torch import Tensor

from reid_tune.data.augment.params import JitterParams
from reid_tune.data.transfer import to_device

__all__ = ["adjust_brightness", "adjust_contrast", "adjust_saturation", "blend", "jitter_colors", "luma"]


def jitter_colors(images: Tensor, jitter: JitterParams) -> Tensor:
    """Change the colours of the selected images, on their device.

    Every sum and product is rounded separately, so that the device and the number of workers make no difference.

    Args:
        images: Images, uint8 [b, H, W, C], RGB or greyscale (C = 1, which has neither saturation nor hue).
        jitter: Parameters for these images.

    Returns:
        float32 [b, H, W, C], 0..255, not rounded to integers.
    """
    adjusted = images.float()
    selected = to_device(np.flatnonzero(jitter.selected), images.device)
    factors = to_device(jitter.factors[jitter.selected].astype(np.float32), images.device)[..., None, None, None]
    planes = adjusted.index_select(0, selected).permute(0, 3, 1, 2).contiguous()
    for operation in jitter.order:
        planes = _OPERATIONS[operation](planes, factors[:, operation])
    return adjusted.index_copy_(0, selected, planes.permute(0, 2, 3, 1))


def adjust_brightness(planes: Tensor, factor: Tensor) -> Tensor:
    """Multiply planes [b, C, H, W] by the factors [b, 1, 1, 1]."""
    return planes.mul(factor).clamp_(0, 255)


def adjust_contrast(planes: Tensor, factor: Tensor) -> Tensor:
    """Multiply the differences to the mean luma of each image by the factors, see `adjust_brightness`."""
    # Rounded to float, a mean in double precision does not depend on the order of its sum.
    return blend(planes, luma(planes).mean((1, 2, 3), keepdim=True, dtype=torch.float64).float(), factor)


def adjust_saturation(planes: Tensor, factor: Tensor) -> Tensor:
    """Multiply the differences to the luma by the factors, see `adjust_brightness`."""
    return planes if planes.shape[1] == 1 else blend(planes, luma(planes), factor)


def _hue(planes: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of HSV (Smith 1978) by a fraction of the circle, -0.5..0.5; saturation and value stay."""
    if planes.shape[1] == 1:
        return planes
    red, green, blue = planes.split(1, dim=1)
    value, low = planes.amax(1, keepdim=True), planes.amin(1, keepdim=True)
    chroma = value - low
    # In sixths of the circle; if all channels are equal, the numerators are 0 and the chroma below too.
    by_blue = (red - green).div_(chroma).add_(4)
    by_green = (blue - red).div_(chroma).add_(2)
    by_red = (green - blue).div_(chroma)
    sixths = torch.where(value == red, by_red, torch.where(value == green, by_green, by_blue)).nan_to_num_(0.0)
    # A channel is at `value` over two sixths, at `low` over the opposite two, and in between on straight lines.
    angle = sixths.add_(shift * 6) + torch.arange(5, 0, -2, device=planes.device)[:, None, None]
    angle = angle.remainder_(6)
    reduction = torch.minimum(angle, 4 - angle).clamp_(0, 1)
    return value - chroma * reduction


def blend(planes: Tensor, reference: Tensor, factor: Tensor) -> Tensor:
    """Return `factor` of the planes and the remainder of a reference, within 0..255."""
    return planes.mul(factor).add_(reference * (1 - factor)).clamp_(0, 255)


def luma(planes: Tensor) -> Tensor:
    """Return the luma (ITU-R BT.601), [b, 1, H, W]."""
    if planes.shape[1] == 1:
        return planes
    red, green, blue = planes.split(1, dim=1)
    return red.mul(0.2989).add_(green.mul(0.587)).add_(blue.mul(0.114))


# In the order of `Jitter.factors`.
_OPERATIONS = (adjust_brightness, adjust_contrast, adjust_saturation, _hue)
