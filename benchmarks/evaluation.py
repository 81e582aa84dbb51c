"""Seconds and peak memory of ranking, re-ranking and further settings, against plain numpy with full matrices.

Each measurement is a separate process; memory is its peak resident size, libraries included.
"""

import argparse
import math
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from reid_tune.evaluation.features import make_feature_set
from reid_tune.evaluation.rerank import ReRanking

Arrays = tuple[np.ndarray, ...]
Sizes = tuple[int, int, int]

# Queries, gallery images and dimensions; the first two are those of the official test sets.
SIZES: dict[str, Sizes] = {
    "market1501": (3368, 15913, 256),
    "market1501-2048": (3368, 15913, 2048),
    "msmt17": (11659, 82161, 256),
}
IMAGES_PER_IDENTITY = 25
SETTING = (20, 6, 0.3)
GRID = list(product((15, 20), (4, 6), (0.2, 0.4, 0.5)))
PAIRS = [(16, 5, 0.3), (18, 6, 0.3), (22, 6, 0.3), (24, 7, 0.3)]


def draw_arrays(queries: int, gallery: int, dimension: int) -> Arrays:
    """Return the six arrays of a feature set: noisy copies of one centre per identity."""
    rng = np.random.default_rng(0)
    identities = max(2, (queries + gallery) // IMAGES_PER_IDENTITY)
    centres = rng.standard_normal((identities, dimension), dtype=np.float32)
    arrays: list[np.ndarray] = []
    for count in (queries, gallery):
        ids = rng.integers(identities, size=count)
        rows = centres[ids] + 2.2 * rng.standard_normal((count, dimension), dtype=np.float32)
        arrays += [rows, ids + 1, rng.integers(1, 7, size=count)]
    return tuple(arrays)


def plain_map(distances: np.ndarray, arrays: Arrays) -> float:
    """Return the mAP from the full index array, one query at a time."""
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
    """Return re-ranked distances by Zhong et al. (CVPR 2017), with n x n matrices."""
    k1, k2, lambda_value = SETTING
    both = np.concatenate([query, gallery])
    d = plain_distances(both, both)
    d /= d.max(axis=1, keepdims=True)
    np.fill_diagonal(d, -1)
    neighbours_of = d.argsort(axis=1)
    np.fill_diagonal(d, 0)

    def reciprocal(i: int, k: int) -> np.ndarray:
        forward = neighbours_of[i, : k + 1]
        return forward[(neighbours_of[forward, : k + 1] == i).any(axis=1)]

    vectors = np.zeros_like(d)
    for i in range(len(d)):
        neighbours_of_i = members = reciprocal(i, k1)
        for j in neighbours_of_i:
            neighbours_of_j = reciprocal(j, int(np.around(k1 / 2)))
            if 3 * len(np.intersect1d(neighbours_of_j, neighbours_of_i)) > 2 * len(neighbours_of_j):
                members = np.append(members, neighbours_of_j)
        members = np.unique(members)
        weights = np.exp(-d[i, members])
        vectors[i, members] = weights / weights.sum()
    vectors = np.stack([vectors[row].mean(axis=0) for row in neighbours_of[:, :k2]])
    q = len(query)
    holders = [column.nonzero()[0] for column in vectors[q:].T]
    result = np.empty((q, len(gallery)), np.float32)
    for i in range(q):
        shared = np.zeros(len(gallery), np.float32)
        for j in vectors[i].nonzero()[0]:
            shared[holders[j]] += np.minimum(vectors[i, j], vectors[q + holders[j], j])
        result[i] = (1 - lambda_value) * (1 - shared / (2 - shared)) + lambda_value * d[i, q:]
    return result


def numpy_map(arrays: Arrays, reranked: bool) -> float:
    return plain_map((plain_reranked if reranked else plain_distances)(arrays[0], arrays[3]), arrays)


def neighbours(arrays: Arrays, device: str) -> float:
    from reid_tune.evaluation.score import Retrieval

    Retrieval(make_feature_set(*arrays), [ReRanking(*SETTING)], device)
    return math.nan


def reid_tune_map(arrays: Arrays, device: str, settings: Sequence[tuple[int, int, float]]) -> float:
    """Return the mAP of the last setting, or without re-ranking if there is no setting."""
    from reid_tune.evaluation.rerank_grid import grid_scores
    from reid_tune.evaluation.score import score

    features = make_feature_set(*arrays)
    if not settings:
        return score(features, device=device).mAP
    *_, last = grid_scores(features, [ReRanking(*values) for values in settings], device)
    return last.mAP


class Cost(NamedTuple):
    """Cost and result of a measurement, without imports."""

    seconds: float
    cpu_seconds: float  # of all threads
    peak: float  # GB of the process, libraries included
    gpu_peak: float  # GB
    mAP: float


def measure(run: Callable[..., float], sizes: Sizes, device: str, *arguments: Any) -> Cost:
    """Run a measurement in this process, which runs nothing else."""
    run(draw_arrays(200, 200, 16), *arguments)  # imports the modules, and loads the kernels of a GPU
    arrays = draw_arrays(*sizes)
    cuda = device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    wall, cpu = time.perf_counter(), time.process_time()
    result = run(arrays, *arguments)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return Cost(wall, cpu, peak, torch.cuda.max_memory_allocated() / 1e9 if cuda else math.nan, result)


def report(name: str, sizes: Sizes, device: str, *, with_numpy: bool) -> None:
    """Print the table of one size; with `with_numpy` also the costs of plain numpy."""
    print(f"\n{name}: {sizes[0]:,} queries x {sizes[1]:,} gallery images x {sizes[2]}-d on {device}")
    print(f"{'':34}" + "".join(f"{title:>9}" for title in ("seconds", "CPU s", "peak GB", "GPU GB", "mAP")))
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:

        def cost(title: str, run: Callable[..., float], *arguments: Any) -> Cost:
            result = pool.apply(measure, (run, sizes, device, *arguments))
            print_row(title, result)
            return result

        for title, settings in (("ranking", []), ("ranking with re-ranking", [SETTING])):
            ranking_cost = cost(title, reid_tune_map, device, settings)
            if with_numpy:
                numpy_cost = cost("  plain numpy", numpy_map, bool(settings))
                ratios = (a / b for a, b in zip(numpy_cost[:3], ranking_cost[:3], strict=True))
                print(f"  {'ratio':32}" + "".join(f"{ratio:8.1f}x" for ratio in ratios))
        cost("of it, neighbours", neighbours, device)
        for title, settings in (("12 more: a grid", GRID), ("4 more: k1 and k2 new", PAIRS)):
            grid_cost = cost(f"  with {title}", reid_tune_map, device, [SETTING, *settings])
            per_setting = [(a - b) / len(settings) for a, b in zip(grid_cost[:2], ranking_cost[:2], strict=True)]
            print_row("each further setting", Cost(*per_setting, math.nan, math.nan, math.nan))


def print_row(title: str, cost: Cost) -> None:
    cells = (f"{value:9.{5 if name == 'mAP' else 2}f}" for name, value in cost._asdict().items())
    print(f"{title:34}" + "".join(" " * 9 if "nan" in cell else cell for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", choices=[*SIZES, "all"], default="all")
    parser.add_argument("--no-numpy", action="store_true", help="without plain numpy, which needs 9 GB")
    parser.add_argument("--quick", action="store_true", help="500 queries, 2,000 gallery images")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if options.device == "cuda":
        print(torch.cuda.get_device_name())
    selected = {name: size for name, size in SIZES.items() if options.size in (name, "all")}
    for name, sizes in {"quick": (500, 2000, 64)}.items() if options.quick else selected.items():
        with_numpy = not options.no_numpy and name in ("quick", "market1501")
        report(name, sizes, options.device, with_numpy=with_numpy)


if __name__ == "__main__":
    main()
