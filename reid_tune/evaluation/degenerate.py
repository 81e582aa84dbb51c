"""Signs that a score says nothing about the embeddings: equal rows, and sides that share images or look exchanged."""

from dataclasses import dataclass

import numpy as np
import torch

from reid_tune.errors import InputError
from reid_tune.evaluation.distances import UniqueRows, full_precision
from reid_tune.evaluation.features import FeatureSet
from reid_tune.identities import is_person

__all__ = ["EmbeddingStatistics", "describe_collapse", "examine_features", "examine_rows"]

_CAUSES = (
    "check the training (learning rate, data) and the images for constant ones and copies (`reid-tune check-data`)"
)


@dataclass(frozen=True)
class EmbeddingStatistics:
    """How different the embeddings of a feature set are, the junk of the gallery left out."""

    queries: int
    gallery: int  # number of images without junk
    distinct_queries: int  # number of different rows
    distinct_gallery: int
    common: float  # length of the mean of the gallery's L2-normalised rows: 1 if all are equal
    is_close: bool  # whether the median squared distance is below `CLOSE`
    common_queries: float  # `common` of the queries
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
        """A sentence if the gallery rows or the queries are hardly different, see `_describe_collapse`."""
        return _describe_collapse(
            "gallery rows", self.gallery, self.distinct_gallery, self.common, self.is_close
        ) or _describe_collapse("queries", self.queries, self.distinct_queries, self.common_queries, False)

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


def _describe_collapse(noun: str, count: int, distinct: int, common: float, is_close: bool) -> str | None:
    """Return a sentence if at most a quarter of several rows is distinct, or if they are close; otherwise None."""
    if 1 < count >= 4 * distinct or distinct == 1 < count:
        return (
            f"the embeddings have collapsed: {distinct:,} of {count:,} {noun} {'is' if distinct == 1 else 'are'} "
            f"distinct, and {100 * common:.3g} % of each row is common to all; the scores say nothing about "
            f"identities: {_CAUSES}"
        )
    if is_close and count > 1:
        return (
            f"the embeddings have almost collapsed: the mean squared distance of two {noun} of length 1 is "
            f"{2 - 2 * common**2:.1e}, so that programs that compare them by float32 products find other neighbours: "
            f"{_CAUSES}"
        )
    return None


def examine_features(features: FeatureSet, device: torch.device | str = "cpu") -> list[str]:
    """Return the sentences of `examine_rows` about features that are not ranked.

    Raises:
        InputError: all of several gallery rows are equal.
    """
    features = features.without_junk()
    if not len(features.gallery_ids):
        return []
    with full_precision():
        rows = UniqueRows.joined([features.query_features, features.gallery_features], device)
        return examine_rows(features, rows)[1]


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
    if len(gallery.distinct) == 1 < len(gallery):
        raise InputError(
            f"nothing can be ranked: the embeddings have collapsed, as all {len(gallery):,} gallery rows are equal; "
            f"{_CAUSES}."
        )
    return EmbeddingStatistics(
        queries=len(queries),
        gallery=len(gallery),
        distinct_queries=len(queries.distinct),
        distinct_gallery=len(gallery.distinct),
        common=_common_length(gallery),
        is_close=gallery.centre is not None,
        common_queries=_common_length(queries),
        constant_columns=_constant_columns(features.query_features, features.gallery_features),
        columns=features.gallery_features.shape[1],
    )


def _common_length(rows: UniqueRows) -> float:
    """Length of the mean of the rows, each divided by its length: 0..1."""
    weights = torch.bincount(rows.position, minlength=len(rows.distinct)).to(rows.distinct.dtype)
    mean = (weights @ rows.distinct).double() / len(rows)
    return min(float((mean if rows.centre is None else mean + rows.centre).norm()), 1.0)


def describe_collapse(embeddings: np.ndarray) -> str | None:
    """Return a sentence if the embeddings float32 [n, d] of the first images are hardly different, otherwise None."""
    embeddings = embeddings[embeddings.any(axis=1)]
    if len(embeddings) < 2:
        return None
    rows = UniqueRows.joined([embeddings])
    noun = "rows of the first images"
    return _describe_collapse(noun, len(rows), len(rows.distinct), _common_length(rows), rows.centre is not None)


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
