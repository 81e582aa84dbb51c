"""All of an evaluation on one device that is not the CPU, see `other_device`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reid_tune.evaluation.breakdown import CameraPairs
from reid_tune.evaluation.matches import TopMatches
from reid_tune.evaluation.openset import open_set
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.rerank_grid import grid_scores
from reid_tune.evaluation.score import scores
from reid_tune.evaluation.thresholds import PairDistances

from ..helpers.evaluation_reference import made_up
from ..helpers.other_device import Held, other_device

SETTINGS = [ReRanking(20, 6, 0.3), ReRanking(20, 6, 0.6), ReRanking(7, 1, 0.3)]
FEATURES = made_up(queries=300, gallery=900, identities=60, noise=0.9)


def ranked(device):
    pairs, watch, kinds = CameraPairs(FEATURES), TopMatches(FEATURES, 5), []

    def watched(blocks):
        def show(receive):
            blocks(lambda members, values: (kinds.append(type(values)), receive(members, values)))

        return watch(pairs(show))

    plain, re_ranked = scores(FEATURES, [None, SETTINGS[0]], device, watched)
    matches = [match.gallery.tolist() for match in watch.matches(plain.matched[:20])]
    return [plain.as_dict(), re_ranked.as_dict(), pairs.rows(), matches], set(kinds)


def grid(device):
    return [score.as_dict() for score in grid_scores(FEATURES, SETTINGS, device)]


def with_copies(device):
    twice = np.concatenate([FEATURES.gallery_features[:-9], FEATURES.query_features[:9]])
    return next(scores(replace(FEATURES, gallery_features=twice), [SETTINGS[0]], device)).as_dict()


def pairs_of(device):
    pairs = PairDistances.of(FEATURES, device)
    return pairs.threshold(0.01), [part.tolist() for part in pairs.histograms]


def close_together(device):
    sides = (FEATURES.query_features, FEATURES.gallery_features)
    query, gallery = (np.float32(1) + np.float32(1e-4) * rows for rows in sides)
    close = replace(FEATURES, query_features=query, gallery_features=gallery)
    plain, re_ranked = scores(close, [None, SETTINGS[0]], device)
    return plain.report(), re_ranked.report(), PairDistances.of(close, device).threshold(0.01)


def strangers(device):
    return open_set(FEATURES, far=0.05, device=device)


def test_scores_and_what_watches_them(monkeypatch):
    expected, kinds = ranked("cpu")
    assert kinds == {torch.Tensor}
    with other_device(monkeypatch) as device:
        assert ranked(device) == (expected, {Held})


@pytest.mark.parametrize("result", [grid, with_copies, pairs_of, strangers, close_together])
def test_results_are_those_of_the_cpu(monkeypatch, result):
    expected = result("cpu")
    with other_device(monkeypatch) as device:
        assert result(device) == expected


@pytest.mark.parametrize("result", [ranked, grid, pairs_of, strangers, close_together])
def test_products_are_in_true_float32_whatever_the_process_has_chosen(monkeypatch, result):
    seen = set()

    def watched(product):
        return lambda *arguments: (seen.add(torch.get_float32_matmul_precision()), product(*arguments))[1]

    for module, name in ((torch, "mm"), (torch.linalg, "vecdot")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        result("cpu")
        assert seen == {"highest"} and torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_device_refuses_what_a_gpu_refuses(monkeypatch):
    ours, index = torch.zeros(3), torch.tensor([2, 0])
    with other_device(monkeypatch) as device:
        theirs, there = ours.to(device), index.to(device)
        theirs[index] = 1.0
        assert (theirs + 1)[there].tolist() == [2.0, 2.0] and theirs[index].cpu().numpy().tolist() == [1.0, 1.0]
        for mix in (lambda: ours + theirs, lambda: ours[there], lambda: theirs.index_select(0, index)):
            with pytest.raises(AssertionError, match="mixes tensors of the CPU"):
                mix()
        for call in (lambda: torch.histc(theirs), lambda: torch.bincount(there, theirs[there])):
            with pytest.raises(AssertionError, match="no deterministic algorithm"):
                call()
        with pytest.raises(RuntimeError, match="numpy"):
            theirs.numpy()
