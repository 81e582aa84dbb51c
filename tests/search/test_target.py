from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.report.sentences import search_end_sentence
from reid_tune.search.target import find_target_trial
from reid_tune.sweep.resume import stages_to_redo

from ..helpers.simulated_driver import EPOCHS, make_sweep, surrogate
from ..helpers.simulated_search import DEAD, searched, start

pytestmark = pytest.mark.usefixtures("no_fsync")


def test_a_search_ends_with_the_first_full_length_trial_that_reaches_the_target(tmp_path: Path) -> None:
    _, whole = searched(make_sweep(tmp_path), tmp_path / "whole")
    scores = {trial.number: trial.last("mAP") or 0.0 for trial in whole.state.finished()}
    assert max(scores.values()) > scores[0]
    target = {"mAP": (max(scores.values()) + scores[0]) / 2}
    first = min(number for number, score in scores.items() if score >= target["mAP"])
    source, journal = searched(make_sweep(tmp_path, target=target), tmp_path / "log")
    assert source.end_reason() == "target" and len(journal.state.trials) == first + 1
    journal.state.stages |= {"preflight": {}, "search": {"ended_by": "target", "target": target}}
    sentence = search_end_sentence(journal.state)
    assert sentence.startswith(f"the search ended because trial {first} has reached the target (mAP ")
    higher = make_sweep(tmp_path, target={"mAP": 1.0})
    assert stages_to_redo(make_sweep(tmp_path, target=target), journal.state, None) == ()
    assert stages_to_redo(higher, journal.state, None) == ("search",)


def test_a_target_that_the_spec_has_ends_the_search_with_trial_0(tmp_path: Path) -> None:
    source, journal = searched(make_sweep(tmp_path, target={"mAP": 0.01}), tmp_path / "log")
    assert source.end_reason() == "target" and len(journal.state.trials) == 1
    journal.state.stages["search"] = {"ended_by": "target", "target": {"mAP": 0.01}}
    assert "because trial 0, the spec itself, has reached the target (mAP 1.0 %)" in search_end_sentence(journal.state)


def test_running_trials_are_stopped_and_stopped_ones_do_not_reach_it(tmp_path: Path) -> None:
    source, journal = start(make_sweep(tmp_path, target={"mAP": 0.5, "Rank-1": 0.6}), tmp_path / "log", levels=())
    for _ in range(4):
        source.next_attempt()
    source.report("trials/0002", {"epoch": 1, "mAP": 0.9, "Rank-1": 0.9})
    source.report("trials/0003", {"epoch": EPOCHS, "mAP": 0.9, "Rank-1": 0.5})
    source.poll()
    assert find_target_trial(journal.state, source.sweep.file.target) is None
    source.report("trials/0001", {"epoch": EPOCHS, "mAP": 0.5, "Rank-1": 0.6})
    source.poll()
    states = [(trial.state, trial.reason) for trial in journal.state.trials]
    stopped = ("stopped", "trial 1 has reached the target")
    assert states == [("running", ""), ("finished", ""), stopped, ("finished", "")]
    assert not source.is_done()
    source.report_lost("trials/0000", DEAD)
    assert source.end_reason() == "target"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"map": 0.8}, "target"),
        ({"mAP": 85}, "target: mAP = 85: scores are fractions, such as 0.85"),
        ({"mAP": 0}, r"target\.mAP = 0"),
        ({"mAP": "high"}, r"target\.mAP"),
        ({"gflops": 0.5}, "target"),
        ([0.8], "target"),
    ],
)
def test_a_target_is_a_score_above_0_and_not_above_1(tmp_path: Path, target: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_sweep(tmp_path, target=target)
    assert "\n" not in str(caught.value)


def test_without_a_target_nothing_reaches_it(tmp_path: Path) -> None:
    _, journal = searched(make_sweep(tmp_path, budget={"trials": 2}), tmp_path / "log", surrogate)
    assert find_target_trial(journal.state, {}) is None
