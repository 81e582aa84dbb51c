"""The same numbers on a GPU as on the CPU."""

from typing import Any

import numpy as np
import pytest
import torch

from reid_tune.evaluation.breakdown import CameraPairs, per_identity
from reid_tune.evaluation.distances import deterministic_algorithms, full_precision
from reid_tune.evaluation.matches import Matches, TopMatches
from reid_tune.evaluation.openset import open_set
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.rerank_grid import grid_scores
from reid_tune.evaluation.score import Retrieval, Score, scores
from reid_tune.tasks.common.calibration import Calibration, calibrate

from ..helpers.evaluation_reference import made_up

SETTINGS = [ReRanking(20, 6, 0.3), ReRanking(20, 6, 0.6), ReRanking(7, 1, 0.3)]
FEATURES = made_up(queries=300, gallery=900, identities=60, noise=0.9)


def all_of(device: str) -> tuple[Score, Score, list[dict[str, Any]], list[Matches]]:
    pairs, watch = CameraPairs(FEATURES), TopMatches(FEATURES, 5)
    plain, re_ranked = scores(FEATURES, [None, SETTINGS[0]], device, lambda blocks: watch(pairs(blocks)))
    return plain, re_ranked, pairs.rows(), watch.matches(plain.matched[:20])


@pytest.mark.gpu
def test_scores_and_their_parts_are_those_of_the_cpu() -> None:
    found = [all_of("cpu"), all_of("cuda")]
    for ours, theirs in zip(*(each[:2] for each in found), strict=True):
        np.testing.assert_allclose(ours.average_precision, theirs.average_precision, atol=1e-3)
        assert ours.mAP == pytest.approx(theirs.mAP, abs=1e-5)
        assert [row["identity"] for row in per_identity(ours)] == [row["identity"] for row in per_identity(theirs)]
    cpu, cuda = (each[2] for each in found)
    assert [row["mAP"] for row in cpu] == pytest.approx([row["mAP"] for row in cuda], abs=1e-4)
    cpu, cuda = (each[3] for each in found)
    assert np.mean([np.array_equal(a.gallery, b.gallery) for a, b in zip(cpu, cuda, strict=True)]) > 0.9


@pytest.mark.gpu
def test_grids_and_open_sets_are_those_of_the_cpu() -> None:
    cpu, cuda = ([score.mAP for score in grid_scores(FEATURES, SETTINGS, device)] for device in ("cpu", "cuda"))
    assert cpu == pytest.approx(cuda, abs=1e-5)
    cpu, cuda = ([row["DIR"] for row in open_set(FEATURES, device=device).rows] for device in ("cpu", "cuda"))
    assert cpu == pytest.approx(cuda, abs=1e-3)


@pytest.mark.gpu
def test_calibrations_are_those_of_the_cpu() -> None:
    cpu, cuda = (calibrate(FEATURES, 0.01, {}, far=0.05, device=device).as_dict() for device in ("cpu", "cuda"))
    assert cpu and cuda
    for name in ("squared_distance", "cosine", "fnmr", "eer"):
        assert cpu[name] == pytest.approx(cuda[name], abs=1e-4)
    assert cpu["pairs"] == cuda["pairs"] and cpu["data"] == cuda["data"]
    cpu, cuda = (each["open_set"]["rows"] for each in (cpu, cuda))
    assert [row["DIR"] for row in cpu] == pytest.approx([row["DIR"] for row in cuda], abs=1e-3)


@pytest.mark.gpu
def test_repeated_scores_are_equal_bit_by_bit_where_wanted() -> None:
    """No operation is refused, and the sums of the re-ranking have one order."""

    def once() -> tuple[list[Score], list[Score], Calibration]:
        pairs, watch = CameraPairs(FEATURES), TopMatches(FEATURES, 5)
        ranked = list(scores(FEATURES, [None, *SETTINGS], "cuda", lambda blocks: watch(pairs(blocks))))
        return ranked, list(grid_scores(FEATURES, SETTINGS, "cuda")), calibrate(FEATURES, 0.01, {}, device="cuda")

    with deterministic_algorithms(True):
        first, *others = (once() for _ in range(4))
    assert not torch.are_deterministic_algorithms_enabled()
    for other in others:
        for ours, theirs in zip((*first[0], *first[1]), (*other[0], *other[1]), strict=True):
            np.testing.assert_array_equal(ours.average_precision, theirs.average_precision)
            np.testing.assert_array_equal(ours.first_hit, theirs.first_hit)
        assert first[2].as_dict() == other[2].as_dict()


@pytest.mark.gpu
def test_values_of_a_re_ranking_repeat_themselves_bit_by_bit_where_wanted() -> None:
    def values() -> torch.Tensor:
        retrieval = Retrieval(FEATURES, SETTINGS[:1], "cuda")
        result = torch.zeros(300, 900, device="cuda")
        with full_precision():
            retrieval.blocks(SETTINGS[0])(lambda members, block: result.__setitem__(members, block))
        return result

    with deterministic_algorithms(True):
        first, *others = (values() for _ in range(4))
    assert all(torch.equal(first, other) for other in others)
