"""CMC, average precision and mINP from blocks of scores, by counting the images before each match."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid_tune.evaluation.distances import DistanceBlocks, tie_breaking_keys
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.neighbours import segment_indices

__all__ = ["Ranker", "Ranking", "rank"]

_FEW = 32  # rows whose tie-breaking keys are held at a time


@dataclass(frozen=True)
class Ranking:
    """Results of q queries; a query without a match has NaN and the first hit -1."""

    average_precision: Tensor  # [q] float64: mean of the precision at each match
    inverse_negative_penalty: Tensor  # [q] float64: matches / rank of the last match (Ye et al. 2021)
    first_hit: Tensor  # [q] int64: number of gallery images before the first match


def rank(features: FeatureSet, blocks: DistanceBlocks) -> Ranking:
    """Rank the gallery for each query, see `Ranker`."""
    ranker = Ranker(features)
    blocks(ranker)
    return ranker.ranking


class Ranker:
    """A consumer of scores [b, g] float32 >= 0; smaller is nearer, of equal scores the lower gallery index comes first.

    For each query the gallery images of its identity and its camera are left out.

    Args:
        features: q queries and g gallery images without junk; only identities and cameras are read.

    Attributes:
        ranking: The results, complete when every query was received.
    """

    def __init__(self, features: FeatureSet) -> None:
        blank = torch.full((len(features.query_ids),), torch.nan, dtype=torch.float64)
        self.ranking = Ranking(blank, blank.clone(), torch.full(blank.shape, -1))
        self._query_cameras = torch.from_numpy(features.query_cameras)
        self._gallery_cameras = torch.from_numpy(features.gallery_cameras)
        self._same_identity = _SameIdentity(features)

    def __call__(self, members: Tensor, scores: Tensor) -> None:
        members = members.cpu()
        row, column = self._same_identity(members)
        match = self._query_cameras[members[row]] != self._gallery_cameras[column]
        scores[row[~match].to(scores.device), column[~match].to(scores.device)] = torch.inf
        row, column = row[match], column[match]
        if len(row):
            before = _before(scores, row.to(scores.device), column.to(scores.device))
            _judge(self.ranking, members, row, before.cpu())


class _SameIdentity:
    """All pairs (row of a block, gallery index) of one identity."""

    def __init__(self, features: FeatureSet) -> None:
        order = np.argsort(features.gallery_ids, kind="stable")
        ends = (np.searchsorted(features.gallery_ids[order], features.query_ids, side) for side in ("left", "right"))
        self.order = torch.from_numpy(order)
        self.low, self.high = (torch.from_numpy(end) for end in ends)

    def __call__(self, members: Tensor) -> tuple[Tensor, Tensor]:
        row, position = segment_indices(self.low[members], self.high[members] - self.low[members])
        return row, self.order[position]


def _before(scores: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Number of scores[row] that come before scores[row, column], for m pairs."""
    match_scores = scores[row, column]
    before, through = _find(scores, row, match_scores)
    tied = (through - before > 1).nonzero()[:, 0]
    if not len(tied):
        return before
    rows, pairs = row[tied].unique_consecutive(return_counts=True)
    for part_rows, part_pairs in zip(
        rows.split(_FEW), tied.split([int(part.sum()) for part in pairs.split(_FEW)]), strict=True
    ):
        keys, local = tie_breaking_keys(scores[part_rows]), torch.searchsorted(part_rows, row[part_pairs])
        before[part_pairs] = _find(keys, local, keys[local, column[part_pairs]])[0]
    return before


def _find(values: Tensor, row: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of values[row] below `thresholds`, and not above `thresholds`; rows ascend."""
    ordered = values.sort(1).values if not values.is_cpu else torch.from_numpy(np.sort(values.numpy(), axis=1))
    lengths = torch.bincount(row, minlength=len(values))
    padded = torch.zeros(len(values), int(lengths.max()), dtype=values.dtype, device=values.device)
    column = torch.arange(len(row), device=row.device) - (lengths.cumsum(0) - lengths)[row]
    padded[row, column] = thresholds
    low, high = (torch.searchsorted(ordered, padded, side=side)[row, column] for side in ("left", "right"))
    return low, high


def _judge(result: Ranking, members: Tensor, row: Tensor, before: Tensor) -> None:
    """Write the results of the queries `members[row]`, whose matches have `before` images before them; rows ascend."""
    order = (row * (int(before.max()) + 1) + before).argsort()
    row, before = row[order], before[order]
    matches = torch.bincount(row, minlength=len(members))
    start = matches.cumsum(0) - matches
    nth = torch.arange(1, len(row) + 1) - start[row]
    has_match = matches > 0
    total = torch.zeros(len(members), dtype=torch.float64).index_add_(0, row, nth.double() / (before + 1))
    query = members[has_match]
    result.average_precision[query] = (total / matches)[has_match]
    result.first_hit[query] = before[start[has_match]]
    last = before[start[has_match] + matches[has_match] - 1]
    result.inverse_negative_penalty[query] = matches[has_match].double() / (last + 1)
