"""Seconds and peak memory of ranking and re-ranking, against plain numpy code with full matrices.

Each measurement is a process of its own; memory is its highest resident size, libraries included.
"""

import argparse
import multiprocessing
import os
import platform
import resource
import time

import numpy as np

IMAGES_PER_IDENTITY = 25
SETTING = (20, 6, 0.3)


def made_up(queries: int, gallery: int, dimension: int) -> tuple[np.ndarray, ...]:
    """The six arrays of a feature set: noisy copies of one centre per identity."""
    rng = np.random.default_rng(0)
    identities = max(2, (queries + gallery) // IMAGES_PER_IDENTITY)
    centres = rng.standard_normal((identities, dimension), dtype=np.float32)
    arrays: list[np.ndarray] = []
    for count in (queries, gallery):
        ids = rng.integers(identities, size=count)
        rows = centres[ids] + 2.2 * rng.standard_normal((count, dimension), dtype=np.float32)
        arrays += [rows, ids + 1, rng.integers(1, 7, size=count)]
    return tuple(arrays)


def plain_map(distances: np.ndarray, arrays: tuple[np.ndarray, ...]) -> float:
    """mAP from the full index array, one query at a time."""
    _, query_ids, query_cameras, _, gallery_ids, gallery_cameras = arrays
    precisions = []
    for order, identity, camera in zip(distances.argsort(axis=1), query_ids, query_cameras, strict=True):
        same = gallery_ids[order] == identity
        hits = same[~(same & (gallery_cameras[order] == camera))]
        if hits.any():
            precisions.append((hits.cumsum() / np.arange(1, len(hits) + 1))[hits].mean())
    return float(np.mean(precisions))


def plain_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return np.maximum(2 - 2 * a @ b.T, 0)


def plain_reranked(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Zhong et al. (CVPR 2017) with n x n matrices."""
    k1, k2, lambda_value = SETTING
    both = np.concatenate([query, gallery])
    d = plain_distances(both, both)
    d /= d.max(axis=1, keepdims=True)
    np.fill_diagonal(d, -1)
    near = d.argsort(axis=1)
    np.fill_diagonal(d, 0)

    def reciprocal(i: int, k: int) -> np.ndarray:
        forward = near[i, : k + 1]
        return forward[(near[forward, : k + 1] == i).any(axis=1)]

    vectors = np.zeros_like(d)
    for i in range(len(d)):
        own = members = reciprocal(i, k1)
        for j in own:
            theirs = reciprocal(j, int(np.around(k1 / 2)))
            if 3 * len(np.intersect1d(theirs, own)) > 2 * len(theirs):
                members = np.append(members, theirs)
        members = np.unique(members)
        weights = np.exp(-d[i, members])
        vectors[i, members] = weights / weights.sum()
    vectors = np.stack([vectors[row].mean(axis=0) for row in near[:, :k2]])
    q = len(query)
    holders = [column.nonzero()[0] for column in vectors[q:].T]
    result = np.empty((q, len(gallery)), np.float32)
    for i in range(q):
        shared = np.zeros(len(gallery), np.float32)
        for j in vectors[i].nonzero()[0]:
            shared[holders[j]] += np.minimum(vectors[i, j], vectors[q + holders[j], j])
        result[i] = (1 - lambda_value) * (1 - shared / (2 - shared)) + lambda_value * d[i, q:]
    return result


def run_plain(arrays: tuple[np.ndarray, ...], reranked: bool) -> float:
    matrix = plain_reranked if reranked else plain_distances
    return plain_map(matrix(arrays[0], arrays[3]), arrays)


def run_ours(arrays: tuple[np.ndarray, ...], reranked: bool) -> float:
    from reid_tune.evaluation.features import feature_set
    from reid_tune.evaluation.rerank import ReRanking
    from reid_tune.evaluation.score import score

    return score(feature_set(*arrays), ReRanking(*SETTING) if reranked else None).mAP


def measure(ours: bool, reranked: bool, sizes: tuple[int, int, int]) -> tuple[float, float, float, float]:
    """Seconds, CPU seconds of all threads, peak GB and mAP; imports are not timed."""
    run = run_ours if ours else run_plain
    run(made_up(200, 200, 16), reranked)
    arrays = made_up(*sizes)
    wall, cpu = time.perf_counter(), time.process_time()
    result = run(arrays, reranked)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="500 queries, 2,000 gallery images")
    options = parser.parse_args()
    sizes = (500, 2000, options.dim) if options.quick else (options.queries, options.gallery, options.dim)
    size = " x ".join(map(str, sizes))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; queries x gallery x dim: {size}"
    )
    print(f"{'':24}{'seconds':>9}{'CPU s':>9}{'peak GB':>9}{'mAP':>9}")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for title, reranked in (("ranking, plain numpy", False), ("re-ranked, plain numpy", True)):
            rows = [pool.apply(measure, (ours, reranked, sizes)) for ours in (False, True)]
            for name, row in zip((title, "  reid-tune"), rows, strict=True):
                print(f"{name:24}{row[0]:9.2f}{row[1]:9.2f}{row[2]:9.2f}{row[3]:9.5f}")
            print("  ratio".ljust(24) + "".join(f"{a / b:8.1f}x" for a, b in zip(*rows, strict=True))[:27], flush=True)


if __name__ == "__main__":
    main()
