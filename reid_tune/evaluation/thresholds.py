"""The distance up to which two images count as one identity, for a requested false-match rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_tune.errors import InputError
from reid_tune.evaluation.distances import BlockConsumer, DistanceBlocks, UniqueRows, distance_blocks, full_precision
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.rankable import explain_no_match
from reid_tune.identities import is_junk, is_person

__all__ = ["BINS", "PairDistances", "Threshold", "without_unidentified"]

BINS = 256  # of the histograms; each holds whole cells of the first pass
_ROWS = 64  # of a block at a time, so that intermediate results stay in the processor's cache
_BITS, _LOW = 31, 16  # bits of a non-negative float32, and those that the first pass leaves to the second


@dataclass(frozen=True)
class Threshold:
    """Two images are taken for one identity if their distance is at most `squared_distance`.

    The terms are those of ISO/IEC 19795-1; all rates are fractions.
    """

    squared_distance: float  # of L2-normalised features, 0..4
    requested: float  # the requested false-match rate
    fmr: float  # the reached rate: share of the pairs of different identities within the threshold
    fnmr: float  # false non-match rate: share of the pairs of one identity beyond it
    eer: float  # mean of both rates at the smallest distance where the first reaches the second
    same: int  # pairs of one identity
    different: int  # pairs of different identities

    @property
    def cosine(self) -> float:
        """The threshold as a cosine similarity: the smallest one that counts as a match."""
        return 1 - self.squared_distance / 2

    @property
    def protocol(self) -> str:
        """One sentence that says how the numbers are measured."""
        return (
            f"{self.same} pairs of a query and a gallery image of its identity under another camera, {self.different} "
            "pairs of different identities under any cameras, distractors among them and junk left out; squared "
            "Euclidean distance of L2-normalised features, never re-ranked; a pair matches at or below the threshold."
        )

    def as_dict(self) -> dict[str, Any]:
        """Numbers and protocol as plain data, for a file."""
        return {
            "fmr": {"wanted": self.requested, "reached": self.fmr},
            "squared_distance": self.squared_distance,
            "cosine": self.cosine,
            "fnmr": self.fnmr,
            "eer": self.eer,
            "pairs": {"same": self.same, "different": self.different},
            "protocol": self.protocol,
        }


class PairDistances:
    """Distances of all pairs (query, gallery image), counted exactly in constant memory.

    Float32 values >= 0 are ordered as the integers that their bits are: a first pass counts the upper 15 bits, a
    second one the lower 16 of the few cells that decide.

    Args:
        features: q queries and g gallery images from `without_unidentified`; only identities and cameras are read.
        blocks: Distances [b, g] float32 in 0..4 of all queries.
    """

    def __init__(self, features: FeatureSet, blocks: DistanceBlocks) -> None:
        self._features, self._blocks = features, blocks

    @classmethod
    def of(cls, features: FeatureSet, device: torch.device | str = "cpu") -> "PairDistances":
        """Squared Euclidean distances of L2-normalised features.

        Raises:
            InputError: see `without_unidentified`.
        """
        features = without_unidentified(features)
        queries, gallery = UniqueRows.of_sides(features.query_features, features.gallery_features, device)

        def run(receive: BlockConsumer) -> None:
            with full_precision():
                distance_blocks(queries, gallery)(receive)

        return cls(features, run)

    @cached_property
    def histograms(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of pairs of one identity and of different ones [2, BINS] int64, and the edges [BINS + 1] of the bins.

        The edges go from 0 to the power of 2 above all distances, 4 at most.
        """
        occupied = np.flatnonzero(self._cells.any(axis=0))
        lower = (occupied << _LOW).astype(np.int32).view(np.float32).astype(np.float64)
        top = min(2.0 ** np.frexp(lower.max(initial=0))[1], 4.0)
        bin_index = np.minimum(lower * (BINS / top), BINS - 1).astype(np.int64)
        counts = [np.bincount(bin_index, weights=cells, minlength=BINS) for cells in self._cells[:, occupied]]
        return np.stack(counts).astype(np.int64), np.linspace(0, top, BINS + 1)

    def threshold(self, fmr: float = 0.001) -> Threshold:
        """The largest distance t between different identities at which at most the share `fmr` of them are <= t.

        Raises:
            InputError: fmr is not between 0 and 1, pairs of one kind are missing, or even the nearest pair of
                different identities is more than the share.
        """
        if not 0 < fmr < 1:
            raise InputError(
                f"a false-match rate of {fmr:g} cannot be used; give a number between 0 and 1 such as 0.001."
            )
        same, different = (int(count) for count in self._cells.sum(axis=1))
        if not same:
            features = self._features
            labels = features.query_ids, features.query_cameras, features.gallery_ids, features.gallery_cameras
            raise InputError(
                explain_no_match(*labels)
                or "only queries of identity 0 have a match, and two images of identity 0 may show two persons; number "
                "identities from 1."
            )
        if not different:
            raise InputError("all pairs are of one identity; add gallery images of other people.")
        values, counts, through = self._deciding(fmr)
        match, miss = through[1] / different, (same - through[0]) / same
        observed = np.flatnonzero(counts[1])
        within = observed[match[observed] <= fmr]
        if not len(within):
            raise InputError(
                f"a false-match rate of {fmr:g} cannot be shown with {different} pairs of different identities: their "
                f"smallest rate is {match[observed[0]]:.3g}; give a larger one, or more images."
            )
        index, crossing = int(within[-1]), int((match >= miss).argmax())
        return Threshold(
            squared_distance=float(values[index]),
            requested=fmr,
            fmr=float(match[index]),
            fnmr=float(miss[index]),
            eer=float(match[crossing] + miss[crossing]) / 2,
            same=same,
            different=different,
        )

    def _deciding(self, fmr: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All values [m] float32 of the cells with the threshold and the equal error rate, in ascending order.

        Returns:
            The values, and the numbers of pairs [2, m] that have them, and that have them or a smaller one.
        """
        ends = self._cells.cumsum(axis=1)
        same, match = ends[0, -1], ends[1] / ends[1, -1]
        above = int((match > fmr).argmax())
        below = np.flatnonzero(self._cells[1, :above])[-1:]  # used if the cell above has no value within the rate
        crossing = int((match >= (same - ends[0]) / same).argmax())
        cells = np.unique([above, crossing, *below])
        counts = self._count(cells.tolist(), _LOW, 0)
        through = counts.cumsum(axis=2) + (ends - self._cells)[:, cells, None]
        values = ((cells[:, None] << _LOW) + np.arange(1 << _LOW)).astype(np.int32).view(np.float32)
        return values.ravel(), counts.reshape(2, -1), through.reshape(2, -1)

    @cached_property
    def _cells(self) -> np.ndarray:
        return self._count([0], _BITS, _LOW)[:, 0]

    def _count(self, prefixes: Sequence[int], high: int, low: int) -> np.ndarray:
        """Count the bits low..high - 1 of all distances whose bits from `high` on are a prefix.

        Returns:
            Numbers of pairs of one identity and of different ones [2, prefixes, 2 ** (high - low)] int64.
        """
        size = 1 << (high - low)
        total = torch.zeros(2, len(prefixes), size, dtype=torch.int64)
        lock = Lock()

        def receive(members: Tensor, block: Tensor) -> None:
            for part, distances in zip(members.split(_ROWS), block.split(_ROWS), strict=True):
                bits = distances.abs_().view(torch.int32)  # -0.0 has other bits than 0.0
                row, column, counts = self._alike(part)
                for number, prefix in enumerate(prefixes):
                    codes = torch.where((bits >> high) == prefix, (bits >> low) & (size - 1), size)
                    same_identity = codes[row, column]
                    kinds = codes.flatten(), same_identity, same_identity[counts]
                    whole, alike, same = (torch.bincount(kind, minlength=size + 1)[:size].cpu() for kind in kinds)
                    with lock:
                        total[:, number] += torch.stack([same, whole - alike])

        self._blocks(receive)
        return total.numpy()

    def _alike(self, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs (row, gallery image) of equal identities for the given queries, and whether each one counts."""
        features = self._features
        labels = (features.query_ids, features.query_cameras, features.gallery_ids, features.gallery_cameras)
        ids, cameras, gallery_ids, gallery_cameras = (torch.from_numpy(label).to(members.device) for label in labels)
        row, column = (ids[members, None] == gallery_ids).nonzero(as_tuple=True)
        # Two images of identity 0 may show one person or two.
        return row, column, (cameras[members[row]] != gallery_cameras[column]) & is_person(gallery_ids[column])


def without_unidentified(features: FeatureSet) -> FeatureSet:
    """Remove the junk of both sides, which may show anybody.

    Raises:
        InputError: no image is left on one side.
    """
    features, is_identified = features.without_junk(), ~is_junk(features.query_ids)
    for side, count in (("gallery image", len(features.gallery_ids)), ("query", int(is_identified.sum()))):
        if not count:
            raise InputError(f"every {side} is junk (identity -1); give images with identities.")
    queries = (
        features.query_features[is_identified],
        features.query_ids[is_identified],
        features.query_cameras[is_identified],
    )
    return FeatureSet(*queries, features.gallery_features, features.gallery_ids, features.gallery_cameras)
