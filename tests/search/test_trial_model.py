from pathlib import Path

from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.trial_model import ObservedTrial, TrialModel, full_length_points, observe

from ..helpers.simulated_driver import make_sweep

MARGIN = "train.optim.triplet_loss_margin"


def observed(encoding: SpaceEncoding, margin: float, scores: dict[int, float]) -> ObservedTrial:
    trial = observe(encoding, {MARGIN: margin})
    trial.full_length, trial.scores, trial.is_running = 9, scores, False
    return trial


def test_stopped_trials_count_at_full_length_where_that_is_asked_for(tmp_path: Path) -> None:
    encoding = SpaceEncoding(make_sweep(tmp_path, space={MARGIN: {"uniform": [0.1, 0.9]}}).space)
    finished = [observed(encoding, margin, {1: margin / 4, 9: margin / 2}) for margin in (0.1, 0.2, 0.3, 0.4)]
    stopped = observed(encoding, 0.9, {1: 0.2})
    point = full_length_points([stopped])
    (uncertain, believed) = (
        TrialModel([*finished, stopped], [1], believe_stopped=asked).process.predict(point) for asked in (False, True)
    )
    assert abs(believed[0] - uncertain[0]) < 1e-3
    assert believed[1] < uncertain[1] / 2
