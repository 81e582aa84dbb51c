import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.journal.state import RunState, trial_run
from reid_tune.search.pareto import pareto_front

COSTS = ("gflops", "parameters")
levels = st.integers(0, 4).map(float)


def trial(number: int, score: float, *costs: float, state: str = "finished") -> RunState:
    by_name = dict(zip(COSTS, costs, strict=False))
    return RunState(trial_run(number), {}, costs=by_name, state=state, epochs={1: {"mAP": 9.0}, 2: {"mAP": score}})


def numbers(trials: list[RunState], count: int) -> list[int]:
    return [found.number for found in pareto_front(trials, "mAP", COSTS[:count])]


@given(st.lists(st.tuples(levels, levels, levels), max_size=12))
def test_the_front_is_what_none_beats(points: list[tuple[float, float, float]]) -> None:
    def beats(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
        return one[0] >= other[0] and one[1] <= other[1] and one[2] <= other[2] and one != other

    expected = {number for number, point in enumerate(points) if not any(beats(rival, point) for rival in points)}
    found = numbers([trial(number, *point) for number, point in enumerate(points)], 2)
    assert set(found) == expected and len(found) == len(expected)
    assert [points[number][0] for number in found] == sorted((points[number][0] for number in found), reverse=True)


@pytest.mark.parametrize(("count", "expected"), [(0, [1]), (1, [1, 4, 5]), (2, [1, 0, 4, 5])])
def test_the_best_score_comes_first_and_without_costs_is_all(count: int, expected: list[int]) -> None:
    points = [(0.6, 9.0, 1.0), (0.9, 9.0, 9.0), (0.9, 9.5, 9.0), (0.4, 5.0, 9.0), (0.5, 4.0, 8.0), (0.5, 4.0, 8.0)]
    trials = [trial(number, *point) for number, point in enumerate(points)]
    assert numbers(trials, count) == expected


def test_only_full_length_trials_with_all_objectives_count() -> None:
    trials = [
        trial(0, 0.1, 5.0),
        trial(1, 0.9, 1.0, state="stopped"),
        trial(2, 0.9),
        trial(3, 0.9, 1.0, state="failed"),
    ]
    assert numbers(trials, 1) == [0]
    trials[0].epochs = {1: {"loss": 1.0}}
    assert numbers(trials, 1) == [] and pareto_front([], "mAP", COSTS) == []
