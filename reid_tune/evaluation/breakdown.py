"""Where a score comes from: the same metrics for each pair of cameras and for each identity."""

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
    """Ranks the images of each gallery camera alone, from the values of a ranking of the whole gallery at work.

    Re-ranked values stay those of the whole gallery: only what stands between the matches changes. Its memory is
    that of one block.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.features = features.without_junk()
        self.rankers: dict[int, Ranker] = {}  # by gallery camera, of the last pass
        cameras = self.features.gallery_cameras
        self.columns = {camera: np.flatnonzero(cameras == camera) for camera in np.unique(cameras).tolist()}

    def __call__(self, blocks: DistanceBlocks) -> DistanceBlocks:
        """The same blocks, whose columns are seen here, camera by camera, before their receiver may change them."""
        self.rankers = {camera: Ranker(self._of(columns)) for camera, columns in self.columns.items()}

        def show(receive: BlockConsumer) -> None:
            def look(members: Tensor, scores: Tensor) -> None:
                for camera, columns in self.columns.items():
                    own = torch.from_numpy(columns).to(scores.device)
                    self.rankers[camera](members, scores.index_select(1, own))
                receive(members, scores)

            blocks(look)

        return show

    def rows(self) -> list[Row]:
        """The lowest mAP first: query_camera, gallery_camera, queries with a match, gallery images, mAP and Rank-1.

        The queries of one camera look only among the images of another, distractors included and junk left out.
        Pairs without a match have no row.
        """
        rows = []
        for camera, ranker in self.rankers.items():
            ranking = ranker.ranking
            found = (ranking.first_hit >= 0).numpy()
            values = {"mAP": ranking.average_precision.numpy(), "Rank-1": ranking.first_hit.numpy() < 1}
            parts = _means(self.features.query_cameras[found], {name: each[found] for name, each in values.items()})
            for own, queries, means in parts:
                place = {"query_camera": own, "gallery_camera": camera}
                rows.append(place | {"queries": queries, "gallery": len(self.columns[camera])} | means)
        return sorted(rows, key=lambda row: (row["mAP"], row["query_camera"], row["gallery_camera"]))

    def _of(self, columns: np.ndarray) -> FeatureSet:
        """The labels of some gallery images; a ranking reads no features, so they are not copied."""
        labels = (self.features.gallery_ids, self.features.gallery_cameras)
        ids, cameras = (label[columns] for label in labels)
        return replace(self.features, gallery_ids=ids, gallery_cameras=cameras)


def per_identity(score: Score) -> list[Row]:
    """The lowest mAP first: identity, its queries with a match, and their mAP, Rank-1 and mINP."""
    values = score.per_query
    parts = _means(score.query_ids, {name: values[name] for name in ("mAP", "Rank-1", "mINP")})
    rows: list[Row] = [{"identity": identity, "queries": queries, **means} for identity, queries, means in parts]
    return sorted(rows, key=lambda row: (row["mAP"], row["identity"]))


def _means(groups: np.ndarray, values: dict[str, np.ndarray]) -> list[tuple[int, int, dict[str, float]]]:
    """Each of the groups [m], how many members it has, and the mean of each of the values [m]."""
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    means = {name: (np.bincount(member, weights=each) / sizes).tolist() for name, each in values.items()}
    return [
        (group, size, {name: means[name][place] for name in means})
        for place, (group, size) in enumerate(zip(names.tolist(), sizes.tolist(), strict=True))
    ]
