"""Breakdown of a score: the same metrics for each pair of cameras and for each identity."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_tune.evaluation.distances import BlockConsumer, DistanceBlocks
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.ranking import Ranker
from reid_tune.evaluation.score import Score

__all__ = ["CameraPairs", "per_identity"]

Row = dict[str, Any]


class CameraPairs:
    """Ranking of each gallery camera's images alone, computed from the distances that rank the whole gallery.

    Re-ranked distances stay those of the whole gallery. The memory is that of one block of distances.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.features = features.without_junk()
        self.rankers: dict[int, Ranker] = {}  # by gallery camera, from the last pass
        cameras = self.features.gallery_cameras
        self.columns = {camera: np.flatnonzero(cameras == camera) for camera in np.unique(cameras).tolist()}

    def __call__(self, blocks: DistanceBlocks) -> DistanceBlocks:
        """Wrap blocks: each block is ranked here, camera by camera, before its consumer may change it."""
        self.rankers = {camera: Ranker(self._of(columns)) for camera, columns in self.columns.items()}

        def run(receive: BlockConsumer) -> None:
            def rank_cameras(members: Tensor, scores: Tensor) -> None:
                for camera, columns in self.columns.items():
                    column_indices = torch.from_numpy(columns).to(scores.device)
                    self.rankers[camera](members, scores.index_select(1, column_indices))
                receive(members, scores)

            blocks(rank_cameras)

        return run

    def rows(self) -> list[Row]:
        """Rows with query_camera, gallery_camera, queries with a match, gallery, mAP and Rank-1, lowest mAP first.

        The queries of one camera are ranked against the images of another one, with distractors and without junk.
        Pairs of cameras without a match have no row.
        """
        rows = []
        for camera, ranker in self.rankers.items():
            ranking = ranker.ranking
            has_match = (ranking.first_hit >= 0).numpy()
            values = {"mAP": ranking.average_precision.numpy(), "Rank-1": ranking.first_hit.numpy() < 1}
            parts = _means(
                self.features.query_cameras[has_match], {name: array[has_match] for name, array in values.items()}
            )
            for query_camera, queries, means in parts:
                cameras = {"query_camera": query_camera, "gallery_camera": camera}
                rows.append(cameras | {"queries": queries, "gallery": len(self.columns[camera])} | means)
        return sorted(rows, key=lambda row: (row["mAP"], row["query_camera"], row["gallery_camera"]))

    def _of(self, columns: np.ndarray) -> FeatureSet:
        """The labels of the gallery images `columns`; a ranking reads no features, so they are not copied."""
        labels = (self.features.gallery_ids, self.features.gallery_cameras)
        ids, cameras = (label[columns] for label in labels)
        return replace(self.features, gallery_ids=ids, gallery_cameras=cameras)


def per_identity(score: Score) -> list[Row]:
    """Rows with identity, its queries with a match, and their mAP, Rank-1 and mINP, lowest mAP first."""
    values = score.per_query
    parts = _means(score.query_ids, {name: values[name] for name in ("mAP", "Rank-1", "mINP")})
    rows: list[Row] = [{"identity": identity, "queries": queries, **means} for identity, queries, means in parts]
    return sorted(rows, key=lambda row: (row["mAP"], row["identity"]))


def _means(groups: np.ndarray, values: dict[str, np.ndarray]) -> list[tuple[int, int, dict[str, float]]]:
    """Name, size and means of the values [m] for each group, given the group [m] of each value."""
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    means = {name: (np.bincount(member, weights=array) / sizes).tolist() for name, array in values.items()}
    return [
        (group, size, {name: means[name][number] for name in means})
        for number, (group, size) in enumerate(zip(names.tolist(), sizes.tolist(), strict=True))
    ]
