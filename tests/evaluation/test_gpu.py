"""The same numbers on a GPU as on the CPU."""

from typing import Any

import numpy as np
import pytest

from reid_tune.evaluation.breakdown import CameraPairs, per_identity
from reid_tune.evaluation.grid import grid_scores
from reid_tune.evaluation.matches import Matches, Watch
from reid_tune.evaluation.openset import open_set
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Score, scores

from .reference import made_up

SETTINGS = [ReRanking(20, 6, 0.3), ReRanking(20, 6, 0.6), ReRanking(7, 1, 0.3)]
FEATURES = made_up(queries=300, gallery=900, identities=60, noise=0.9)


def all_of(device: str) -> tuple[Score, Score, list[dict[str, Any]], list[Matches]]:
    pairs, watch = CameraPairs(FEATURES), Watch(FEATURES, 5)
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
