import random

import pytest

from reid_tune.search.promotion import Promotion

Scores = dict[int, dict[str, float]]


def best_of(scores: dict[str, float], factor: int) -> list[str]:
    """The definition: the best 1/factor of a rung, of equal scores the earlier ones."""
    return sorted(scores, key=lambda run: -scores[run])[: len(scores) // factor]


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_decisions_are_those_of_the_definition(factor: int, seed: int) -> None:
    draw = random.Random(seed)
    levels = (1, factor, factor**2)
    promotion, scores = Promotion(levels, factor), {level: dict[str, float]() for level in levels}
    paused: dict[str, int] = {}
    promoted = at_once = 0

    def report(run: str, level: int) -> None:
        nonlocal at_once
        value = draw.randrange(30) / 30  # with ties
        scores[level][run] = value
        continues = promotion.should_continue(run, level, value)
        assert continues == (run in best_of(scores[level], factor))
        at_once += continues
        if not continues:
            paused[run] = level
        elif level != levels[-1]:
            report(run, level * factor)

    for number in range(120):
        promotable = [
            (-level, best.index(run), run)
            for level in levels
            for best in [best_of(scores[level], factor)]
            for run in best
            if paused.get(run) == level
        ]
        expected = min(promotable)[2] if promotable else None
        assert promotion.next_run(paused) == expected
        if expected is None:
            report(f"trials/{number:04d}", 1)
        else:
            promoted += 1
            level = paused.pop(expected)
            if level != levels[-1]:
                report(expected, level * factor)
    assert promoted and at_once


def test_fewer_trials_than_the_factor_all_pause_and_then_the_best_is_promoted() -> None:
    promotion = Promotion((1, 3), 3)
    assert not promotion.should_continue("a", 1, 0.5) and promotion.next_run(["a"]) is None
    assert not promotion.should_continue("b", 1, 0.4) and promotion.next_run(["a", "b"]) is None
    assert not promotion.should_continue("c", 1, 0.3)
    assert promotion.next_run(["a", "b", "c"]) == "a"
    assert promotion.next_run(["b", "c"]) is None, "a has the only place"


def test_a_trial_of_a_higher_rung_is_promoted_first() -> None:
    promotion = Promotion((1, 2), 2)
    for run, value in (("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4)):
        promotion.should_continue(run, 1, value)
    assert promotion.next_run("abcd") == "d"
    assert not promotion.should_continue("d", 2, 0.1) and not promotion.should_continue("x", 2, 0.05)
    assert promotion.next_run("abcd") == "d" and promotion.next_run("abc") == "c"
    assert promotion.ranked("abcd") == ["d", "c", "b", "a"]


def test_epochs_between_rungs_and_scores_that_are_not_finite_are_not_recorded() -> None:
    promotion = Promotion((1,), 2)
    assert promotion.should_continue("a", 1, float("nan")) and promotion.should_continue("a", 2, -1.0)
    assert not promotion.should_continue("b", 1, 0.1) and promotion.next_run(["b"]) is None


def test_a_trial_is_compared_with_those_that_cost_no_more() -> None:
    promotion = Promotion((1,), 3)
    assert not promotion.should_continue("a", 1, 0.9, (10.0,))
    assert not promotion.should_continue("b", 1, 0.8, (10.0,))
    assert promotion.should_continue("small", 1, 0.1, (1.0,)), "nothing is as cheap"
    assert not promotion.should_continue("worse", 1, 0.05, (1.0,))
    assert promotion.next_run(["a", "b", "worse"]) == "a"
