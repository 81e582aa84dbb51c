"""Slow, plain implementations, written from the papers' formulas, and small data to try them on."""

import numpy as np

from reid_tune.evaluation.features import FeatureSet, make_feature_set

__all__ = ["distances", "made_up", "plain_ranking", "plain_reranking"]


def made_up(queries=23, gallery=90, dimension=12, identities=9, cameras=4, seed=0, noise=1.2) -> FeatureSet:
    """Noisy copies of one centre per identity."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((identities, dimension))
    sides = []
    for count in (queries, gallery):
        ids = rng.integers(identities, size=count)
        rows = centres[ids] + noise * rng.standard_normal((count, dimension))
        sides += [rows.astype(np.float32), ids + 1, rng.integers(1, cameras + 1, size=count)]
    return make_feature_set(*sides)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (a, b))
    return np.array([((row - b) ** 2).sum(axis=1) for row in a])


def plain_ranking(scores: np.ndarray, features: FeatureSet) -> tuple[list[float], list[float], list[np.ndarray]]:
    """Average precision, inverse negative penalty and CMC curve of each query with a match, one query at a time."""
    precisions, penalties, curves = [], [], []
    for query, row in enumerate(scores):
        hits = []
        for image in sorted(range(len(row)), key=lambda image: (row[image], image)):
            same = features.gallery_ids[image] == features.query_ids[query]
            if not (same and features.gallery_cameras[image] == features.query_cameras[query]):
                hits.append(bool(same))
        if any(hits):
            ranks = [place for place, hit in enumerate(hits, start=1) if hit]
            precisions.append(float(np.mean([nth / place for nth, place in enumerate(ranks, start=1)])))
            penalties.append(1 - (ranks[-1] - len(ranks)) / ranks[-1])
            curves.append(np.arange(1, len(row) + 1) >= ranks[0])
    return precisions, penalties, curves


def plain_reranking(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """(1 - lambda) Jaccard + lambda d of Zhong et al. (CVPR 2017), with full n x n matrices and Python sets."""
    both = np.concatenate([query, gallery])
    d = distances(both, both)
    order = [sorted(range(len(d)), key=lambda j: (j != i, d[i, j], j)) for i in range(len(d))]
    d = d / d.max(axis=1, keepdims=True)

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    vectors = np.zeros_like(d)
    for i in range(len(d)):
        own = reciprocal(i, k1)
        expanded = set(own)
        for j in own:
            theirs = reciprocal(j, int(np.around(k1 / 2)))
            if 3 * len(theirs & own) > 2 * len(theirs):
                expanded |= theirs
        for j in expanded:
            vectors[i, j] = np.exp(-d[i, j])
        vectors[i] /= vectors[i].sum()
    vectors = np.array([vectors[order[i][:k2]].mean(axis=0) for i in range(len(d))])
    q = len(query)
    smaller = np.array([np.minimum(row, vectors[q:]).sum(axis=1) for row in vectors[:q]])
    larger = np.array([np.maximum(row, vectors[q:]).sum(axis=1) for row in vectors[:q]])
    return (1 - lambda_value) * (1 - smaller / larger) + lambda_value * d[:q, q:]
