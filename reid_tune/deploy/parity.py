"""Whether an ONNX file computes what the network computes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from reid_tune.data.normalisation import normalise
from reid_tune.deploy.deviation import NEIGHBOURS, measure_deviation, same_neighbours
from reid_tune.deploy.fp16 import round_to_fp16
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.parity_limits import FP32_LIMITS, fp16_limits
from reid_tune.modeling.network import ReIDNet

__all__ = ["BATCHES", "Parity", "measure_parity"]

BATCHES = (1, 3, 16)


@dataclass(frozen=True)
class Parity:
    """How far onnxruntime's embeddings are from PyTorch's, the worst over all crops and batch sizes."""

    crops: int  # how many were compared
    synthetic: bool  # whether they were generated for want of real ones
    batches: tuple[int, ...]
    cosine: float  # the smallest between the two embeddings of a crop
    difference: float  # the largest of any value, as a share of the largest value
    same_neighbours: float  # share of the crops with the same 10 nearest others in the same order, up to ties
    min_cosine: float  # the limits
    max_difference: float

    @property
    def equal(self) -> bool:
        """Whether all numbers are within the limits; false where one is not finite."""
        near = self.cosine >= self.min_cosine and self.difference <= self.max_difference
        return near and self.same_neighbours == 1

    def __str__(self) -> str:
        return (
            f"smallest cosine 1 - {abs(1 - self.cosine):.1e} (limit 1 - {1 - self.min_cosine:.1e}), largest difference "
            f"{self.difference:.1e} of the largest value (limit {self.max_difference:.1e}), same {NEIGHBOURS} nearest "
            f"neighbours {self.same_neighbours:.1%}, on {self.crops} {'synthetic' if self.synthetic else 'real'} crops"
        )

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)


def measure_parity(network: ReIDNet, model: OnnxModel, crops: np.ndarray | None = None) -> Parity:
    """Compare an ONNX file with a network in eval mode on the CPU, at every batch size of `BATCHES`.

    Args:
        crops: [n, H, W, 3] uint8 as the model takes them, n >= 1; synthetic ones where None.

    Raises:
        RunFailedError: the file is in half precision, which makes another network of this one.
    """
    image_spec = model.preprocessing.image_spec
    images = synthetic_crops(image_spec.height, image_spec.width) if crops is None else crops
    found = [_embed_padded(model, images, size) for size in BATCHES]
    wanted = _embed(network, model, images)
    limits = FP32_LIMITS
    if model.options.precision == "fp16":
        limits = fp16_limits(wanted, _embed(round_to_fp16(network), model, images))
    apart = [measure_deviation(wanted, rows) for rows in found]
    return Parity(
        len(images),
        crops is None,
        BATCHES,
        float(np.min([each.cosine for each in apart])),
        float(np.max([each.difference for each in apart])),
        min(same_neighbours(wanted, rows, limits.tie) for rows in found),
        limits.cosine,
        limits.difference,
    )


def synthetic_crops(height: int, width: int) -> np.ndarray:
    """16 crops of coloured blocks under noise, [16, height, width, 3] uint8, always the same."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 224, (16, 8, 4, 3))
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 4 // width
    noise = random.integers(0, 32, (16, height, width, 3))
    return (blocks[:, rows][:, :, columns] + noise).astype(np.uint8)


@torch.inference_mode()
def _embed(network: Callable[[Tensor], Tensor], model: OnnxModel, images: np.ndarray) -> np.ndarray:
    parts = torch.from_numpy(images).split(max(BATCHES))
    embeddings = torch.cat([network(normalise(part, model.preprocessing.image_spec)) for part in parts])
    return (normalize(embeddings) if model.options.l2_normalized else embeddings).numpy()


def _embed_padded(model: OnnxModel, images: np.ndarray, size: int) -> np.ndarray:
    """In batches of exactly `size` crops, the last one filled up with the first crops."""
    full = -(-len(images) // size) * size
    return model.embed(np.resize(images, (full, *images.shape[1:])), size)[: len(images)]
