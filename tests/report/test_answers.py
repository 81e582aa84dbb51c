"""The three answers at the top of a report."""

from typing import Any

import pytest

from reid_tune.journal.costs import Cost
from reid_tune.journal.state import SweepState, replay
from reid_tune.report.answers import answer_questions, baseline_answer, champion_answer, cost_answer

from ..helpers.report_events import GAIN, LEVEL, NOISE, REGISTERED, compared, events


def confirmed(*arguments: Any, **changes: Any) -> SweepState:
    state = replay(events())
    state.stages["confirm"] = compared(*arguments, **changes)
    return state


def test_a_whole_sweep_answers_three_questions() -> None:
    assert list(map(str, answer_questions(replay(events()), Cost(0.5, 0.0, 1.0)))) == [
        "Is the winner better than the baseline? Yes, by 12.5 points. "
        "Trial 2: +12.5 points of mAP against trial 0, mean of 2 repeats. "
        "It is hardly chance: the 95 % interval is +6.2 to +18.8 points.",
        "Is the winner better than the champion? There was none. "
        "m had no other champion: version 2 has the alias champion.",
        "What was spent? 0.50 hours, 1.00 CPU-hours. 5 trials, 1 refit. The budget: 3 hours.",
    ]


@pytest.mark.parametrize(
    ("difference", "winner", "verdict", "explanation"),
    [
        (
            NOISE,
            2,
            "Not proven",
            "could be chance: the 95 % interval, -1.0 to +3.0 points, contains 0. Trial 2 wins by",
        ),
        (
            NOISE | {"low": None, "high": None, "repeats": 1},
            2,
            "Not proven",
            "One repeat does not show how much of that",
        ),
        (NOISE | {"mean": -0.01}, 0, "No, the baseline wins", "contains 0. Trial 0 wins by its mean."),
        ({"mean": -0.02, "low": -0.03, "high": -0.01, "repeats": 5}, 2, "No", "95 % interval is -3.0 to -1.0 points. "),
        (GAIN, 0, "No, the baseline wins", "is +6.2 to +18.8 points. Trial 0 wins because it costs less"),
    ],
)
def test_the_baseline_is_only_beaten_by_a_proven_gain(
    difference: dict[str, Any], winner: int, verdict: str, explanation: str
) -> None:
    answer = baseline_answer(confirmed(difference, winner))
    assert answer.verdict == verdict and explanation in answer.explanation


def test_without_a_comparison_nothing_is_known() -> None:
    state = confirmed(GAIN)
    state.stages["confirm"]["trials"] = [{"number": 2, "against_trial0": None}]
    assert baseline_answer(state).verdict == "Not known"
    del state.stages["register"]
    begun, searched = replay(events()[:4]), replay(events("search"))
    assert (baseline_answer(begun).verdict, baseline_answer(searched).verdict) == ("Not known yet", "Not known yet")
    assert "trial 2 has +12.5 points of mAP against trial 0, but the best" in baseline_answer(searched).explanation
    assert (champion_answer(searched).verdict, champion_answer(state).verdict) == ("Not known yet", "There is none")
    assert cost_answer(begun, Cost()).explanation == "No runs. The budget: 3 hours."


@pytest.mark.parametrize(
    ("difference", "is_accepted", "verdict"),
    [
        (None, False, "Not compared"),
        (LEVEL | {"repeats": 3}, False, "Not proven"),
        (GAIN, True, "Yes, by 12.5 points"),
        (NOISE, True, "Not proven"),  # It costs less.
        ({"mean": -0.02, "low": -0.03, "high": -0.01, "repeats": 5}, False, "No"),
    ],
)
def test_the_champion_is_only_beaten_by_a_proven_gain(
    difference: dict[str, Any] | None, is_accepted: bool, verdict: str
) -> None:
    result = {"against": 1, "is_accepted": is_accepted, "reason": "the reason", "difference": difference}
    state = confirmed(GAIN, champion={"version": 1, "verdict": result})
    del state.stages["register"]
    decision = "It may replace the champion." if is_accepted else "The champion remains in use."
    answer = champion_answer(state)
    assert (answer.verdict, answer.explanation) == (verdict, f"The reason. {decision}")
    state.stages["register"] = REGISTERED | result | {"alias": "champion" if is_accepted else "challenger"}
    decision = (
        "Version 2 has the alias champion instead of version 1."
        if is_accepted
        else "Version 1 remains in use, and version 2 has the alias challenger."
    )
    assert str(champion_answer(state)).endswith(f"champion? {verdict}. The reason. {decision}")
