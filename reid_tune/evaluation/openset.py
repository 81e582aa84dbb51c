"""Open-set identification: the share of enrolled people that are identified at a given false alarm rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_tune.errors import InputError
from reid_tune.evaluation.distances import UniqueRows, distance_blocks, full_precision
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.thresholds import without_unidentified
from reid_tune.identities import is_person

__all__ = ["FAR", "SIZES", "OpenSet", "open_set"]

FAR = 0.01  # the smallest customary rate that a few hundred queries can show: it needs 100 impostors
SIZES = (10, 50, 100, 250, 500, 1000, 2500, 5000)


@dataclass(frozen=True)
class OpenSet:
    """Detection and identification rates by number of enrolled identities."""

    far: float  # the requested false alarm rate
    draws: int  # galleries drawn for each number of identities
    rows: list[dict[str, Any]]  # identities, DIR, its range over the draws, and means: FAR, squared_distance, ...
    reason: str | None  # reason for an empty table

    @property
    def protocol(self) -> str:
        """One sentence that says how the numbers are measured."""
        return (
            f"means over {self.draws} drawn galleries of so many identities, without distractors; queries with an "
            "enrolled image of another camera are genuine, those of nobody enrolled are impostors; DIR is the share "
            "of the genuine whose nearest image is of their identity and within the threshold, where at most the share "
            f"FAR = {self.far:g} of the impostors have an image."
        )

    def as_dict(self) -> dict[str, Any]:
        """The table as plain data, for JSON."""
        table = {"far": self.far, "draws": self.draws, "rows": self.rows, "reason": self.reason}
        return table | {"protocol": self.protocol}


@dataclass(frozen=True)
class _Trial:
    """Rates with one gallery."""

    DIR: float
    FAR: float
    squared_distance: float
    genuine: int
    impostors: int


def open_set(
    features: FeatureSet,
    far: float = FAR,
    sizes: Sequence[int] = SIZES,
    draws: int = 10,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> OpenSet:
    """The detection and identification rate (DIR) at a false alarm rate (FAR), for growing galleries.

    After Phillips, Grother and Micheals, Evaluation methods in face recognition (Handbook of Face Recognition, 2011).
    The threshold is the largest distance at which at most the share `far` of the impostors have an enrolled image. A
    genuine query that ties with another identity is not identified. Queries whose identity is enrolled only under
    their own camera are neither genuine nor impostors. A number of identities has a row if every draw leaves a genuine
    query and 1 / far impostors. Memory is O(queries x identities).

    Raises:
        InputError: far is not between 0 and 1, or one side holds only junk.
    """
    if not 0 < far < 1:
        raise InputError(f"a false alarm rate of {far:g} cannot be used; give a number between 0 and 1 such as {FAR}.")
    features = without_unidentified(features)
    identities = np.unique(features.gallery_ids[is_person(features.gallery_ids)])
    rows = []
    if len(identities):
        nearest = _nearest(features, identities, device)
        for size in (size for size in sizes if size <= len(identities)):
            random = np.random.default_rng(seed)
            chosen = [random.choice(len(identities), size, replace=False) for _ in range(draws)]
            trials = [
                _trial(nearest, identities, features.query_ids, chosen_identities, far) for chosen_identities in chosen
            ]
            possible = [trial for trial in trials if trial]
            if len(possible) == draws:
                rows.append(_row(size, possible))
    reason = (
        f"{len(identities)} gallery identities and {len(features.query_ids)} queries leave no gallery of "
        f"{min(sizes)} or more identities with {int(np.ceil(1 / far))} impostors, which a FAR of {far:g} needs"
    )
    return OpenSet(far, draws, rows, None if rows else reason)


def _nearest(features: FeatureSet, identities: np.ndarray, device: torch.device | str) -> np.ndarray:
    """Smallest distance [q, identities] of each query to each identity, infinite without an image.

    Images of the query's identity and camera are left out.
    """
    kept = is_person(features.gallery_ids)
    gallery_features = features.gallery_features[kept]
    ids, cameras = (torch.from_numpy(x[kept]).to(device) for x in (features.gallery_ids, features.gallery_cameras))
    query_ids, query_cameras = (torch.from_numpy(x).to(device) for x in (features.query_ids, features.query_cameras))
    owner = torch.from_numpy(np.searchsorted(identities, features.gallery_ids[kept])).to(device)
    result = torch.full((len(query_ids), len(identities)), torch.inf, device=device)

    def receive(members: Tensor, block: Tensor) -> None:
        same_camera = (query_ids[members, None] == ids) & (query_cameras[members, None] == cameras)
        block.masked_fill_(same_camera, torch.inf)
        result[members] = result[members].scatter_reduce_(1, owner.expand(len(block), -1), block, "amin")

    with full_precision():
        queries, gallery = UniqueRows.of_sides(features.query_features, gallery_features, device)
        distance_blocks(queries, gallery)(receive)
    return result.cpu().numpy()


def _trial(
    nearest: np.ndarray, identities: np.ndarray, query_ids: np.ndarray, chosen: np.ndarray, far: float
) -> _Trial | None:
    """Rates with the identities `chosen` [n] enrolled; None if there are too few queries to measure them."""
    values = nearest[:, chosen]
    row, column = np.nonzero(query_ids[:, None] == identities[chosen])
    enrolled = np.zeros(len(query_ids), bool)
    enrolled[row] = True
    impostors = np.sort(values[~enrolled].min(axis=1))
    allowed = int((np.arange(1, len(impostors) + 1) / max(len(impostors), 1) <= far).sum())
    match_distances = values[row, column]
    values[row, column] = np.inf
    genuine = np.isfinite(match_distances)
    if not allowed or not genuine.any():
        return None
    # Just below the first impostor too many.
    threshold = np.nextafter(impostors[allowed], np.float32(-np.inf))
    is_identified = (match_distances < values[row].min(axis=1)) & (match_distances <= threshold)
    return _Trial(
        DIR=float(is_identified[genuine].mean()),
        FAR=float((impostors <= threshold).mean()),
        squared_distance=float(threshold),
        genuine=int(genuine.sum()),
        impostors=len(impostors),
    )


def _row(size: int, trials: Sequence[_Trial]) -> dict[str, Any]:
    def values(name: str) -> list[float]:
        return [float(getattr(trial, name)) for trial in trials]

    rates = values("DIR")
    means = {name: float(np.mean(values(name))) for name in ("FAR", "squared_distance", "genuine", "impostors")}
    return {"identities": size, "DIR": float(np.mean(rates)), "DIR_range": [min(rates), max(rates)]} | means
