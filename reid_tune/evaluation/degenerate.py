"""Signs that a score says nothing about the embeddings: rows that are equal, and labels that leave no choice."""

from dataclasses import dataclass

import numpy as np
import torch

from reid_tune.errors import InputError
from reid_tune.evaluation.distances import UniqueRows
from reid_tune.evaluation.features import FeatureSet
from reid_tune.identities import is_junk, is_person

__all__ = ["EmbeddingStatistics", "examine_features", "examine_rows", "require_rankable"]

_CAUSES = "check the training (learning rate, data) and the images for constant ones (`reid-tune check-data`)"


@dataclass(frozen=True)
class EmbeddingStatistics:
    """How different the embeddings of a feature set are, the junk of the gallery left out."""

    queries: int
    gallery: int  # number of images without junk
    distinct_queries: int  # number of different rows
    distinct_gallery: int
    common: float  # length of the mean of the gallery's L2-normalised rows: 1 if all are equal
    is_close: bool  # whether the median squared distance is below `CLOSE`
    constant_columns: int  # columns with one value in all rows
    columns: int

    def as_dict(self) -> dict[str, float | int]:
        """The numbers for JSON, without those that the score has."""
        return {
            "distinct_queries": self.distinct_queries,
            "distinct_gallery": self.distinct_gallery,
            "common": self.common,
            "constant_columns": self.constant_columns,
            "columns": self.columns,
        }

    @property
    def collapse(self) -> str | None:
        """A sentence if the rows are hardly different: at most a tenth of them is distinct, or they are close."""
        if 1 < self.gallery >= 10 * self.distinct_gallery:
            return (
                f"the embeddings have collapsed: {self.distinct_gallery:,} of {self.gallery:,} gallery rows are "
                f"distinct, and {100 * self.common:.3g} % of each row is common to all; the scores say nothing about "
                f"identities: {_CAUSES}"
            )
        if self.is_close and self.gallery > 1:
            return (
                "the embeddings have almost collapsed: the mean squared distance of two gallery rows of length 1 is "
                f"{2 - 2 * self.common**2:.1e}, so that programs that compare them by float32 products find other "
                f"neighbours: {_CAUSES}"
            )
        return None

    @property
    def warnings(self) -> list[str]:
        """Sentences about the rows; usually none."""
        if self.collapse:
            return [self.collapse]
        lines = []
        if 100 * (repeated := self.gallery - self.distinct_gallery) >= self.gallery:
            lines.append(
                f"{repeated:,} of {self.gallery:,} gallery rows are equal to another one, and the order of the gallery "
                "decides which comes first: check the images for copies and constant ones (`reid-tune check-data`)"
            )
        if 2 * self.constant_columns >= self.columns:
            lines.append(
                f"{self.constant_columns:,} of the {self.columns:,} columns of the features have one value in all "
                "rows: check the last layer of the model"
            )
        return lines


def require_rankable(
    query_ids: np.ndarray, query_cameras: np.ndarray, gallery_ids: np.ndarray, gallery_cameras: np.ndarray
) -> None:
    """Check that identities and cameras leave something to rank.

    Args:
        query_ids: Identities of the queries, int64 [q].
        query_cameras: Cameras of the queries, int64 [q].
        gallery_ids: Identities of the gallery, int64 [g].
        gallery_cameras: Cameras of the gallery, int64 [g].

    Raises:
        InputError: no gallery image is left without junk, no query has a match, or no query could have a wrong image.
    """
    kept = ~is_junk(gallery_ids)
    gallery_ids, gallery_cameras = gallery_ids[kept], gallery_cameras[kept]
    if not len(gallery_ids):
        raise InputError("every gallery image is junk (identity -1); give a gallery with identities.")
    identities, position = np.unique(gallery_ids, return_inverse=True)
    first_camera = np.full(len(identities), gallery_cameras.max())
    last_camera = np.full(len(identities), gallery_cameras.min())
    np.minimum.at(first_camera, position, gallery_cameras)
    np.maximum.at(last_camera, position, gallery_cameras)
    index = np.searchsorted(identities, query_ids).clip(max=len(identities) - 1)
    is_present = identities[index] == query_ids
    has_match = is_present & ((first_camera[index] != query_cameras) | (last_camera[index] != query_cameras))
    if not has_match.any():
        reason = _why_unmatched(is_present, np.union1d(query_cameras, gallery_cameras))
        raise InputError(f"no query has a match (its identity under another camera) in the gallery: {reason}.")
    if len(identities) == 1:
        raise InputError(
            f"every gallery image without junk has identity {identities[0]}, so that any embedding scores 100 %: add "
            "gallery images of other identities."
        )


def _why_unmatched(is_present: np.ndarray, cameras: np.ndarray) -> str:
    if len(cameras) == 1:
        return (
            f"all images have camera {cameras[0]}; number the cameras, or, if they are unknown, give the queries "
            "another camera than the gallery"
        )
    if not is_present.any():
        return "the gallery has none of the queries' identities; check that the two sets belong together"
    return (
        f"it lacks the identities of {int((~is_present).sum()):,} of the {len(is_present):,} queries, and has the "
        "others only under the query's own camera; check the two sets"
    )


def examine_features(features: FeatureSet, device: torch.device | str = "cpu") -> list[str]:
    """Return the sentences of `examine_rows` about features that are not ranked.

    Raises:
        InputError: all of several gallery rows are equal.
    """
    features = features.without_junk()
    if not len(features.gallery_ids):
        return []
    return examine_rows(features, UniqueRows.joined([features.query_features, features.gallery_features], device))[1]


def examine_rows(features: FeatureSet, rows: UniqueRows) -> tuple[EmbeddingStatistics, list[str]]:
    """Measure how different the rows are, and return sentences about what makes their scores doubtful; usually none.

    Args:
        features: q queries and g gallery images without junk.
        rows: Rows of the queries, followed by those of the gallery.

    Raises:
        InputError: all of several gallery rows are equal, so that nothing can be ranked.
    """
    queries = len(features.query_ids)
    statistics = _measure(features, rows.part(0, queries), rows.part(queries, len(rows)))
    if statistics.collapse:
        return statistics, statistics.warnings
    return statistics, statistics.warnings + _describe_sides(
        features, *np.split(rows.position.cpu().numpy(), [queries])
    )


def _measure(features: FeatureSet, queries: UniqueRows, gallery: UniqueRows) -> EmbeddingStatistics:
    count, distinct = len(gallery), len(gallery.distinct)
    if distinct == 1 < count:
        raise InputError(
            f"nothing can be ranked: the embeddings have collapsed, as all {count:,} gallery rows are equal; {_CAUSES}."
        )
    weights = torch.bincount(gallery.position, minlength=distinct).to(gallery.distinct.dtype)
    mean = (weights @ gallery.distinct).double() / count
    if gallery.centre is not None:
        mean += gallery.centre
    return EmbeddingStatistics(
        queries=len(queries),
        gallery=count,
        distinct_queries=len(queries.distinct),
        distinct_gallery=distinct,
        common=min(float(mean.norm()), 1.0),
        is_close=gallery.centre is not None,
        constant_columns=_constant_columns(features.query_features, features.gallery_features),
        columns=features.gallery_features.shape[1],
    )


def _constant_columns(*parts: np.ndarray) -> int:
    """Number of columns that have one value in all rows; reads few rows if there is none."""
    first = parts[0][0]
    columns = np.arange(len(first))
    for part in parts:
        start, size = 0, 1
        while start < len(part) and len(columns):
            rows = part[start : start + size, columns]
            columns = columns[(rows == first[columns]).all(axis=0)]
            start, size = start + size, min(2 * size, 1024)
    return len(columns)


def _describe_sides(features: FeatureSet, query_rows: np.ndarray, gallery_rows: np.ndarray) -> list[str]:
    """Return sentences about queries and gallery that look exchanged, or have images in common.

    Args:
        features: Queries and gallery without junk.
        query_rows: For each query the number of its distinct row, int64 [q].
        gallery_rows: For each gallery image the number of its distinct row, counted like that of the queries.
    """
    lines = []
    queries, gallery = len(query_rows), len(gallery_rows)
    unnamed = int((~is_person(features.query_ids)).sum())
    if queries >= 3 * gallery or (unnamed and is_person(features.gallery_ids).all()):
        note = f" ({unnamed:,} of them junk or distractors)" if unnamed else ""
        lines.append(
            f"queries and gallery may be exchanged: there are {queries:,} queries{note} and {gallery:,} gallery images"
        )
    copies, twins = _count_copies(features, query_rows, gallery_rows)
    if copies:
        lines.append(
            f"{copies:,} of {queries:,} queries have their own embedding in the gallery as a match (their identity "
            "under another camera), and so the scores are too high: remove the copies of these images"
        )
    elif twins == queries > 1:
        lines.append(
            "all queries are gallery images too; the copy of a query does not count only as it has the query's camera"
        )
    return lines


def _count_copies(features: FeatureSet, query_rows: np.ndarray, gallery_rows: np.ndarray) -> tuple[int, int]:
    """Number of queries that equal a match, and of those that equal an image of their identity and camera."""
    shared = np.flatnonzero(np.isin(query_rows, gallery_rows))
    cameras: dict[tuple[int, int], set[int]] = {}
    for image in np.flatnonzero(np.isin(gallery_rows, query_rows[shared])).tolist():
        key = int(gallery_rows[image]), int(features.gallery_ids[image])
        cameras.setdefault(key, set()).add(int(features.gallery_cameras[image]))
    copies = twins = 0
    for query in shared.tolist():
        own_camera = int(features.query_cameras[query])
        others = cameras.get((int(query_rows[query]), int(features.query_ids[query])), set())
        copies += bool(others - {own_camera})
        twins += own_camera in others
    return copies, twins
