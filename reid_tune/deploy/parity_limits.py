"""How far a right ONNX file may be from its network."""

from dataclasses import dataclass

import numpy as np

from reid_tune.deploy.deviation import measure_deviation
from reid_tune.errors import RunFailedError

__all__ = ["FP32_LIMITS", "ParityLimits", "fp16_limits"]

_MARGIN = 2
# Beyond this the network is another one. An untrained ResNet-50 with a BNNeck of its own, similar features gave 0.989.
_COARSEST = 1 - 1e-3
_FP16, _INSTEAD = "export.precision = fp16 does not fit this network:", "export it with fp32"


@dataclass(frozen=True)
class ParityLimits:
    """Smallest cosine, largest difference as a share of the largest value, and cosines that count as equally near."""

    cosine: float
    difference: float
    tie: float


# Two correct programs differ by the rounding of float32, which a BNNeck after similar features magnifies: up to 5e-5 of
# the largest value and 2e-7 of the cosine were seen. One weight matrix that is 1% off gives 4e-3 and 6e-6 or more.
# A retrieval must not change at all, but of two neighbours that are as near up to rounding either may come first.
FP32_LIMITS = ParityLimits(1 - 1e-6, 5e-4, 1e-5)


def fp16_limits(wanted: np.ndarray, rounded: np.ndarray) -> ParityLimits:
    """Twice the deviation that rounding to half precision alone gives, for no fixed limit fits all networks.

    Seen: rounding a ResNet or a Swin turns embeddings to a cosine of 1 - 4e-7 and moves values by 1e-3 of the largest,
    but by 4e-5 and 1e-2 where a BNNeck follows similar features. Right files had 0.3 to 1.3 times that. One weight
    matrix that is 1% off gives 2 to 7 times, and is found, unless a norm or a small scale behind it takes it below the
    rounding, as in some layers of Swin and ConvNeXt.

    Args:
        wanted: Embeddings [n, D] by a network.
        rounded: By the same one in half precision, see `rounding.rounded`.

    Raises:
        RunFailedError: half precision makes another network of it.
    """
    if not np.isfinite(rounded).all():
        raise RunFailedError(f"{_FP16} values inside it exceed 65,504; {_INSTEAD}.")
    own = measure_deviation(wanted, rounded)
    if not own.cosine >= _COARSEST:
        raise RunFailedError(f"{_FP16} rounding alone turns embeddings to a cosine of {own.cosine:.4f}; {_INSTEAD}.")
    # A cosine falls with the square of a deviation; between two crops, each has its own.
    return ParityLimits(1 - _MARGIN**2 * (1 - own.cosine), _MARGIN * own.difference, 2 * _MARGIN * own.shift)
