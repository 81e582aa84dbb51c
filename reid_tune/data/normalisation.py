"""Normalisation of decoded images on the model's device."""

from functools import lru_cache

import torch
from torch import Tensor

from reid_tune.data.image_spec import ImageSpec

__all__ = ["normalise", "normalise_pixels"]


def normalise(images: Tensor, spec: ImageSpec) -> Tensor:
    """Return `(images / 255 - mean) / std`.

    Args:
        images: Images, uint8 [batch, H, W, 3].
        spec: Channels, mean and standard deviation.

    Returns:
        float32 [batch, channels, H, W], channels last in memory.
    """
    return normalise_pixels(images[..., : spec.channels], spec).permute(0, 3, 1, 2)


def normalise_pixels(images: Tensor, spec: ImageSpec) -> Tensor:
    """Normalise pixels [batch, H, W, channels] to float32 of the same shape; a float32 input is changed in place.

    One product and one sum, each rounded once, are the same on every device; on whole rows they are fastest.
    """
    width, channels = images.shape[2:]
    scale, shift = _constants(spec.mean[:channels], spec.std[:channels], width, images.device)
    rows = images.reshape(-1, width * channels).float().mul_(scale).add_(shift)
    return rows.view(images.shape)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device) -> list[Tensor]:
    """Return factor and summand of the normalisation for one row of pixels, float32 [width * channels].

    They stay on the device: a copy from ordinary memory would make the host wait for the GPU in every step.
    """
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
    shift = -255 * torch.tensor(mean, dtype=torch.float64) * scale
    return [values.float().repeat(width).to(device) for values in (scale, shift)]
