"""Comparison of an ONNX file with the network that it was exported from."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from reid_tune.data.normalisation import normalise
from reid_tune.deploy.fp16 import round_to_fp16
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.errors import RunFailedError
from reid_tune.modeling.network import ReIDNet

__all__ = [
    "BATCHES",
    "FP32_LIMITS",
    "NEIGHBOURS",
    "Deviation",
    "Parity",
    "ParityLimits",
    "fp16_limits",
    "measure_deviation",
    "measure_parity",
    "same_neighbours",
]

BATCHES = (1, 3, 16)
NEIGHBOURS = 10

_FP16_MARGIN = 2
# Beyond this the network is another one. An untrained ResNet-50 with a BNNeck, which has similar features, gave 0.989.
_COARSEST_COSINE = 1 - 1e-3
_FP16_FAILS, _FP16_HINT = "export.precision = fp16 does not fit this network:", "export it with fp32"


@dataclass(frozen=True)
class Deviation:
    """Largest deviation between two sets of embeddings of the same crops.

    The numbers are NaN or infinite where an embedding is zero or not finite.

    Attributes:
        cosine: Smallest cosine between the two embeddings of a crop.
        difference: Largest difference of any value, as a share of the largest value.
        cosine_shift: Largest difference of the cosine between two crops.
    """

    cosine: float
    difference: float
    cosine_shift: float


@dataclass(frozen=True)
class ParityLimits:
    """Largest deviation of a correct file.

    Attributes:
        cosine: Smallest cosine between the two embeddings of a crop.
        difference: Largest difference of any value, as a share of the largest value.
        tie: Largest difference of two cosines that count as equally near.
    """

    cosine: float
    difference: float
    tie: float


# Two correct programs differ by the rounding of float32, which a BNNeck after similar features magnifies: up to 5e-5 of
# the largest value and 2e-7 of the cosine were seen. One weight matrix that is 1% off gives 4e-3 and 6e-6 or more.
# A retrieval must not change at all, but of two neighbours that are as near up to rounding either may come first.
FP32_LIMITS = ParityLimits(1 - 1e-6, 5e-4, 1e-5)


@dataclass(frozen=True)
class Parity:
    """Largest deviation of onnxruntime's embeddings from PyTorch's over all crops and batch sizes.

    Attributes:
        crops: Number of crops that were compared.
        synthetic: Whether the crops were generated because no real ones were available.
        batches: Batch sizes that were compared.
        cosine: Smallest cosine between the two embeddings of a crop.
        difference: Largest difference of any value, as a share of the largest value.
        same_neighbours: Share of the crops with the same 10 nearest others in the same order, except for ties.
        min_cosine: Limit of `cosine`.
        max_difference: Limit of `difference`.
    """

    crops: int
    synthetic: bool
    batches: tuple[int, ...]
    cosine: float
    difference: float
    same_neighbours: float
    min_cosine: float
    max_difference: float

    @property
    def equal(self) -> bool:
        """Whether all numbers are within the limits; false where one is not finite."""
        is_near = self.cosine >= self.min_cosine and self.difference <= self.max_difference
        return is_near and self.same_neighbours == 1

    def __str__(self) -> str:
        return (
            f"smallest cosine 1 - {abs(1 - self.cosine):.1e} (limit 1 - {1 - self.min_cosine:.1e}), largest difference "
            f"{self.difference:.1e} of the largest value (limit {self.max_difference:.1e}), same {NEIGHBOURS} nearest "
            f"neighbours {self.same_neighbours:.1%}, on {self.crops} {'synthetic' if self.synthetic else 'real'} crops"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return asdict(self)


def measure_parity(network: ReIDNet, model: OnnxModel, crops: np.ndarray | None = None) -> Parity:
    """Compare an ONNX file with a network in eval mode on the CPU, at every batch size of `BATCHES`.

    Args:
        network: The network.
        model: The file.
        crops: [n, H, W, 3] uint8 as the model takes them, n >= 1; None for synthetic ones.

    Raises:
        RunFailedError: the file is in half precision, which changes this network too much.
    """
    image_spec = model.preprocessing.image_spec
    images = synthetic_crops(image_spec.height, image_spec.width) if crops is None else crops
    onnx_embeddings = [_embed_padded(model, images, size) for size in BATCHES]
    embeddings = _embed(network, model, images)
    limits = FP32_LIMITS
    if model.options.precision == "fp16":
        limits = fp16_limits(embeddings, _embed(round_to_fp16(network), model, images))
    deviations = [measure_deviation(embeddings, rows) for rows in onnx_embeddings]
    return Parity(
        len(images),
        crops is None,
        BATCHES,
        float(np.min([deviation.cosine for deviation in deviations])),
        float(np.max([deviation.difference for deviation in deviations])),
        min(same_neighbours(embeddings, rows, limits.tie) for rows in onnx_embeddings),
        limits.cosine,
        limits.difference,
    )


def fp16_limits(embeddings: np.ndarray, rounded: np.ndarray) -> ParityLimits:
    """Return twice the deviation that rounding to half precision alone causes, as no fixed limit fits all networks.

    Measured: rounding a ResNet or a Swin turns embeddings to a cosine of 1 - 4e-7 and moves values by 1e-3 of the
    largest, but by 4e-5 and 1e-2 where a BNNeck follows similar features. Correct files had 0.3 to 1.3 times that. One
    weight matrix that is 1% off gives 2 to 7 times and is detected, unless a norm or a small scale after it takes the
    error below the rounding, as in some layers of Swin and ConvNeXt.

    Args:
        embeddings: Embeddings [n, D] by a network.
        rounded: Embeddings [n, D] by the same network in half precision, see `round_to_fp16`.

    Raises:
        RunFailedError: half precision changes the network too much.
    """
    if not np.isfinite(rounded).all():
        raise RunFailedError(f"{_FP16_FAILS} values inside it exceed 65,504; {_FP16_HINT}.")
    deviation = measure_deviation(embeddings, rounded)
    if not deviation.cosine >= _COARSEST_COSINE:
        raise RunFailedError(
            f"{_FP16_FAILS} rounding alone turns embeddings to a cosine of {deviation.cosine:.4f}; {_FP16_HINT}."
        )
    # A cosine falls with the square of a deviation. Between two crops, each has its own deviation.
    return ParityLimits(
        1 - _FP16_MARGIN**2 * (1 - deviation.cosine),
        _FP16_MARGIN * deviation.difference,
        2 * _FP16_MARGIN * deviation.cosine_shift,
    )


def measure_deviation(expected: np.ndarray, actual: np.ndarray) -> Deviation:
    """Compare embeddings [n, D], in float64."""
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(expected - actual).max() / np.abs(expected).max()
    left, right = _unit_rows(expected), _unit_rows(actual)
    cosine_shift = np.abs(left @ left.T - right @ right.T).max()
    return Deviation(float((left * right).sum(1).min()), float(difference), float(cosine_shift))


def same_neighbours(expected: np.ndarray, actual: np.ndarray, tie: float) -> float:
    """Return the share of the crops whose 10 nearest others are the same in the same order.

    With fewer than 11 crops, all others are compared.

    Args:
        expected, actual: Embeddings [n, D], n >= 1.
        tie: Largest difference of the cosines of two neighbours that may change places.
    """
    # A crop itself, always the nearest, stays in, so that a single one has a neighbour.
    cosines, actual_cosines = (rows @ rows.T for rows in map(_unit_rows, (expected, actual)))
    chosen = np.argsort(-actual_cosines, axis=1, kind="stable")[:, : NEIGHBOURS + 1]
    nearest = -np.sort(-cosines, axis=1)[:, : NEIGHBOURS + 1]
    is_near = np.abs(np.take_along_axis(cosines, chosen, 1) - nearest) <= tie
    return float(is_near.all(axis=1).mean())


def synthetic_crops(height: int, width: int) -> np.ndarray:
    """Return 16 crops of coloured blocks with noise, [16, height, width, 3] uint8, always the same."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 224, (16, 8, 4, 3))
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 4 // width
    noise = random.integers(0, 32, (16, height, width, 3))
    return (blocks[:, rows][:, :, columns] + noise).astype(np.uint8)


@torch.inference_mode()
def _embed(network: Callable[[Tensor], Tensor], model: OnnxModel, images: np.ndarray) -> np.ndarray:
    batches = torch.from_numpy(images).split(max(BATCHES))
    embeddings = torch.cat([network(normalise(batch, model.preprocessing.image_spec)) for batch in batches])
    return (normalize(embeddings) if model.options.l2_normalized else embeddings).numpy()


def _embed_padded(model: OnnxModel, images: np.ndarray, size: int) -> np.ndarray:
    """Embed in batches of exactly `size` crops, the last one filled up with the first crops."""
    full = -(-len(images) // size) * size
    return model.embed(np.resize(images, (full, *images.shape[1:])), size)[: len(images)]


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
