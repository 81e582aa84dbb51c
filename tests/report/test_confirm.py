import re
from typing import Any

from reid_tune.report.confirm import confirm_chart, explain_winner, tied_candidates

from ..helpers.report_events import CONFIRM

FEW = " With confirm.seeds below 3 the interval does not show what a seed is worth."
NOISE = {"mean": 0.01, "low": -0.01, "high": 0.03, "repeats": 2}


def with_noise(winner: int, **more: Any) -> dict[str, Any]:
    """Trial 2 is the best, and trial 1 within its noise."""
    close = {"number": 1, "values": [0.375, 0.5], "mean": 0.4375, "best_against_it": NOISE, "against_trial0": NOISE}
    return CONFIRM | {"winner": winner, "trials": [*CONFIRM["trials"], close]} | more  # type: ignore[misc]


def test_why_the_winner_has_won() -> None:
    assert tied_candidates(CONFIRM) == [2] and tied_candidates(with_noise(1)) == [2, 1]
    assert explain_winner(CONFIRM, []) == "Trial 2 has the best mean, and beats each other beyond noise." + FEW
    assert explain_winner(with_noise(1), []) == (
        "Trial 2 has the best mean, but does not beat trial 1 beyond noise; of these, trial 1 is the earliest." + FEW
    )
    assert explain_winner(with_noise(2, failed=[3, 4]), ["gflops"]) == (
        "Trial 2 has the best mean, but does not beat trial 1 beyond noise; of these, trial 2 costs the least "
        "(gflops), and is the earliest of equals. Out, as a repeat failed: trials 3 and 4." + FEW
    )
    alone = CONFIRM | {"trials": CONFIRM["trials"][1:]}  # type: ignore[index]
    assert explain_winner(alone, []) == "Trial 2 has the best mean, and no other trial was repeated." + FEW


def test_the_chart_has_the_candidates_side_by_side_and_names_the_winner() -> None:
    svg = confirm_chart(with_noise(1), "mAP")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert [text for text in texts if text in ("2", "1", "0 (spec)")] == ["2", "1", "0 (spec)"]
    assert {"winner", "repeat 1", "repeat 2", "50.0", "43.8", "37.5", "mAP %"} <= set(texts)
    assert {"var(--orange)", "var(--ink)", "var(--blue)"} <= set(re.findall(r"var\(--\w+\)", svg))
