"""The best matches of a few queries, chosen by chance, for people to look at."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid_tune.evaluation.distances import Blocks, Receiver
from reid_tune.evaluation.features import FeatureSet

__all__ = ["Matches", "Watch", "best_matches", "choose_queries"]


@dataclass(frozen=True)
class Matches:
    """The first r gallery images of a query, the best first, without those of its identity and its camera."""

    query: int  # index of the query
    gallery: np.ndarray  # [r] int64 indices into the gallery without junk
    correct: np.ndarray  # [r] bool: whether the identity is the query's


class Watch:
    """Keeps what a few of all queries get while a ranking is at work.

    Args:
        chosen: Indices of the queries, c.
        gallery: Number of gallery images, g.

    Attributes:
        chosen: As given.
        rows: Their values [c, g] float32 in the last pass; smaller is nearer.
    """

    def __init__(self, chosen: np.ndarray, gallery: int) -> None:
        self.chosen = chosen
        self.rows = torch.zeros(len(chosen), gallery)

    def __call__(self, blocks: Blocks) -> Blocks:
        """The same blocks, which are seen here before their receiver may change them."""

        chosen = torch.from_numpy(self.chosen)[:, None]

        def show(receive: Receiver) -> None:
            def look(members: Tensor, scores: Tensor) -> None:
                place, row = (chosen == members.cpu()).nonzero(as_tuple=True)
                self.rows[place] = scores[row.to(scores.device)].cpu()
                receive(members, scores)

            blocks(look)

        return show


def choose_queries(features: FeatureSet, count: int, seed: int) -> np.ndarray:
    """Ascending indices of up to `count` queries with a match, drawn by a seed."""
    features = features.without_junk()
    chosen: list[int] = []
    for query in np.random.default_rng(seed).permutation(len(features.query_ids)):
        if len(chosen) == count:
            break
        same, own_camera = _same(features, query)
        if (same & ~own_camera).any():
            chosen.append(int(query))
    return np.array(sorted(chosen), np.int64)


def best_matches(features: FeatureSet, watch: Watch, ranks: int) -> list[Matches]:
    """The first `ranks` gallery images of each query that was watched; of ties the lower index.

    There are fewer where the gallery, without the images of the query's identity and camera, is smaller.
    """
    features = features.without_junk()
    found = []
    for query, row in zip(watch.chosen, watch.rows.numpy(), strict=True):
        same, own_camera = _same(features, query)
        order = row.argsort(kind="stable")
        order = order[~(same & own_camera)[order]][:ranks]
        found.append(Matches(int(query), order, same[order]))
    return found


def _same(features: FeatureSet, query: int) -> tuple[np.ndarray, np.ndarray]:
    """Which gallery images have the query's identity, and which its camera."""
    return (
        features.gallery_ids == features.query_ids[query],
        features.gallery_cameras == features.query_cameras[query],
    )
