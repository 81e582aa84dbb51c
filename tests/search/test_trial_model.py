from pathlib import Path

import numpy as np
import pytest

from reid_tune.search.asha import Rungs
from reid_tune.search.earlier_trials import EarlierTrials
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.joint_sampler import JointSampler
from reid_tune.search.trial_model import ObservedTrial, TrialModel, full_length_points, observe

from ..helpers.simulated_driver import make_sweep

MARGIN, WARMUP = "train.optim.triplet_loss_margin", "train.optim.warmup_iters"


def observed(encoding: SpaceEncoding, margin: float, scores: dict[int, float]) -> ObservedTrial:
    trial = observe(encoding, {MARGIN: margin}, Rungs((1,)), 9)
    trial.scores, trial.is_running = scores, False
    return trial


def test_stopped_trials_count_at_full_length_where_that_is_asked_for(tmp_path: Path) -> None:
    encoding = SpaceEncoding(make_sweep(tmp_path, space={MARGIN: {"uniform": [0.1, 0.9]}}).space)
    finished = [observed(encoding, margin, {1: margin / 4, 9: margin / 2}) for margin in (0.1, 0.2, 0.3, 0.4)]
    stopped = observed(encoding, 0.9, {1: 0.2})
    point = full_length_points([stopped])
    (uncertain, believed) = (
        TrialModel([*finished, stopped], believe_stopped=asked).process.predict(point) for asked in (False, True)
    )
    assert abs(believed[0] - uncertain[0]) < 1e-3
    assert believed[1] < uncertain[1] / 2


def test_a_trial_with_a_longer_warm_up_teaches_at_its_later_rung(tmp_path: Path) -> None:
    encoding = SpaceEncoding(make_sweep(tmp_path, space={WARMUP: {"int": [1, 4]}}).space)

    def prediction(scores: dict[int, float]) -> np.ndarray:
        trials = [observe(encoding, {WARMUP: epochs}, Rungs((2,), warmup=1), 9) for epochs in (1, 2, 3)]
        assert [trial.rungs for trial in trials] == [(2,), (3,), (4,)]
        for trial, scores_of_trial in zip(trials, ({2: 0.1, 9: 0.5}, {3: 0.2, 9: 0.4}, scores), strict=True):
            trial.scores, trial.is_running = scores_of_trial, False
        return TrialModel(trials).predict(full_length_points(trials))[0]

    calm = prediction({2: 0.1, 4: 0.2, 6: 0.3})
    assert np.array_equal(calm, prediction({2: 0.3, 4: 0.2, 6: 0.3})), "not its rung"
    assert not np.array_equal(calm, prediction({2: 0.1, 4: 0.3, 6: 0.3}))


@pytest.mark.parametrize(("trials", "near_sources"), [(8, 1), (16, 0)])
def test_candidates_near_the_trials_of_a_source_end_with_its_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int, near_sources: int
) -> None:
    encoding = SpaceEncoding(make_sweep(tmp_path, space={MARGIN: {"uniform": [0.1, 0.9]}}).space)
    margins = np.linspace(0.1, 0.9, trials).tolist()
    rising, falling = (
        TrialModel([observed(encoding, margin, {9: 0.5 + sign * margin / 2}) for margin in margins]) for sign in (1, -1)
    )
    sampler = JointSampler(encoding, 1, 4, Rungs((1,)), EarlierTrials(sources=[rising, falling]))
    for number, margin in enumerate(margins):
        sampler.trials[str(number)] = observed(encoding, margin, {9: margin})
    built: list[object] = []
    configuration = encoding.configuration
    monkeypatch.setattr(encoding, "configuration", lambda position: built.append(0) or configuration(position))
    next(sampler.candidates(trials))
    assert len(built) == 400 + 4 * 60 * (1 + near_sources)
