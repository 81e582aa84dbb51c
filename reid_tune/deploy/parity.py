"""Whether an ONNX file computes what the network computes."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.modeling.network import ReIDNet

__all__ = ["BATCHES", "MAX_DIFFERENCE", "MIN_COSINE", "MIN_SAME_NEIGHBOUR", "Parity", "measure_parity"]

BATCHES = (1, 3, 16)

# Two correct programs differ by the rounding of float32, which a BNNeck after similar features magnifies: up to 5e-5 of
# the largest value and 2e-7 of the cosine were seen. One weight matrix that is 1% off gives 4e-3 and 6e-6 or more.
MAX_DIFFERENCE = 5e-4
MIN_COSINE = 1 - 1e-6
# A retrieval must not change at all, but of two neighbours that are as near up to rounding either may come first.
MIN_SAME_NEIGHBOUR = 1.0
_TIE = 1e-5


@dataclass(frozen=True)
class Parity:
    """How far onnxruntime's embeddings are from PyTorch's, the worst over all crops and batch sizes."""

    crops: int  # how many were compared
    synthetic: bool  # whether they were generated for want of real ones
    batches: tuple[int, ...]
    cosine: float  # the smallest between the two embeddings of a crop
    difference: float  # the largest of any value, as a share of the largest value
    same_neighbour: float  # share of the crops with the same nearest other crop; ties count as the same

    @property
    def equal(self) -> bool:
        """Whether all numbers are within the limits; false where one is not finite."""
        near = self.cosine >= MIN_COSINE and self.difference <= MAX_DIFFERENCE
        return near and self.same_neighbour >= MIN_SAME_NEIGHBOUR

    def __str__(self) -> str:
        return (
            f"smallest cosine 1 - {abs(1 - self.cosine):.1e} (limit 1 - {1 - MIN_COSINE:.0e}), largest difference "
            f"{self.difference:.1e} of the largest value (limit {MAX_DIFFERENCE:.0e}), same nearest neighbour "
            f"{self.same_neighbour:.1%}, on {self.crops} {'synthetic' if self.synthetic else 'real'} crops"
        )

    def as_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)


def measure_parity(network: ReIDNet, model: OnnxModel, crops: np.ndarray | None = None) -> Parity:
    """Compare an ONNX file with a network in eval mode on the CPU, at every batch size of `BATCHES`.

    Args:
        crops: [n, H, W, 3] uint8 as the model takes them, n >= 1; synthetic ones where None.
    """
    images = synthetic_crops(model.height, model.width) if crops is None else crops
    found = [_embed_padded(model, images, size) for size in BATCHES]
    wanted = _embed(network, model, images)
    cosines, differences, same = np.transpose([_compare(wanted, rows) for rows in found])
    numbers = float(cosines.min()), float(differences.max()), float(same.min())
    return Parity(len(images), crops is None, BATCHES, *numbers)


def synthetic_crops(height: int, width: int) -> np.ndarray:
    """16 crops of coloured blocks under noise, [16, height, width, 3] uint8, always the same."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 224, (16, 8, 4, 3))
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 4 // width
    noise = random.integers(0, 32, (16, height, width, 3))
    return (blocks[:, rows][:, :, columns] + noise).astype(np.uint8)


@torch.inference_mode()
def _embed(network: ReIDNet, model: OnnxModel, images: np.ndarray) -> np.ndarray:
    parts = torch.from_numpy(images).split(max(BATCHES))
    return torch.cat([network(model.normalise(part)) for part in parts]).numpy()


def _embed_padded(model: OnnxModel, images: np.ndarray, size: int) -> np.ndarray:
    """In batches of exactly `size` crops, the last one filled up with the first crops."""
    full = -(-len(images) // size) * size
    return model.embed(np.resize(images, (full, *images.shape[1:])), size)[: len(images)]


def _compare(wanted: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    """Smallest cosine, largest difference, share of same neighbours; NaN or 0 where a row is not finite or zero."""
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (wanted, found))
        difference = np.abs(wanted - found).max() / np.abs(wanted).max()
    similar, others = _similarities(left), _similarities(right)
    chosen = np.take_along_axis(similar, others.argmax(1)[:, None], 1)[:, 0]
    same = chosen >= similar.max(1) - _TIE
    return float((left * right).sum(1).min()), float(difference), float(same.mean())


def _similarities(rows: np.ndarray) -> np.ndarray:
    similar = rows @ rows.T
    np.fill_diagonal(similar, -np.inf)
    return similar
