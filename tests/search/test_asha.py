import random
from fractions import Fraction

import pytest

from reid_tune.search.asha import Asha, rung_epochs, warmup_epochs


@pytest.mark.parametrize(
    ("grace", "factor", "epochs", "levels"),
    [(1, 3, 10, (1, 3, 9)), (1, 3, 9, (1, 3)), (13, 3, 120, (13, 39, 117)), (2, 2, 17, (2, 4, 8, 16)), (6, 3, 6, ())],
)
def test_rungs_lie_below_the_full_length(grace: int, factor: int, epochs: int, levels: tuple[int, ...]) -> None:
    assert rung_epochs(grace, factor, epochs) == levels


def quantile(values: list[Fraction], share: Fraction) -> Fraction:
    """The definition: sort, go `share` of the way from the first to the last, interpolate."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = place.numerator // place.denominator
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_decisions_are_those_of_the_rule(factor: int, seed: int) -> None:
    random_state = random.Random(seed)
    levels = (1, factor, factor**2)
    asha, known = Asha(levels, factor), {level: list[Fraction]() for level in levels}
    stopped = 0
    for _ in range(200):
        epoch = random_state.choice([*levels, factor**2 + 1])
        value = Fraction(random_state.randrange(1_000_003), 1_000_003)
        continues = asha.should_continue("run", epoch, float(value))
        if epoch not in levels:
            assert continues
            continue
        assert continues == (not known[epoch] or value >= quantile(known[epoch], 1 - Fraction(1, factor)))
        known[epoch].append(value)
        stopped += not continues
    assert 0 < stopped < 200


def test_of_equal_values_all_continue() -> None:
    asha = Asha((1,), 3)
    assert all(asha.should_continue("run", 1, 0.1) for _ in range(30))


def test_a_value_that_is_not_finite_is_not_recorded() -> None:
    asha = Asha((1,), 2)
    assert asha.should_continue("run", 1, 0.5)
    assert asha.should_continue("run", 1, float("nan")) and asha.should_continue("run", 1, float("inf"))
    assert asha.should_continue("run", 1, 0.5) and not asha.should_continue("run", 1, 0.49)


def test_without_rungs_nothing_is_stopped() -> None:
    asha = Asha((), 3)
    assert all(asha.should_continue("run", epoch, -epoch) for epoch in range(1, 30))


@pytest.mark.parametrize("seed", range(5))
def test_a_trial_is_compared_with_those_that_cost_no_more(seed: int) -> None:
    random_state = random.Random(seed)
    asha, known = Asha((1,), 3), list[tuple[Fraction, int, int]]()
    stopped = spared = 0
    for _ in range(200):
        value, size, width = (
            Fraction(random_state.randrange(1_000_003), 1_000_003),
            *random_state.choices(range(4), k=2),
        )
        rivals = [other for other, *costs in known if costs[0] <= size and costs[1] <= width]
        expected = not rivals or value >= quantile(rivals, Fraction(2, 3))
        assert asha.should_continue("run", 1, float(value), (float(size), float(width))) == expected
        stopped += not expected
        spared += expected and bool(known) and value < quantile([other for other, *_ in known], Fraction(2, 3))
        known.append((value, size, width))
    assert stopped and spared


def test_a_small_model_is_not_stopped_by_big_ones_but_big_ones_by_it() -> None:
    asha = Asha((1,), 3)
    assert all(asha.should_continue("run", 1, 0.9, (10.0,)) for _ in range(5))
    assert asha.should_continue("run", 1, 0.2, (1.0,)) and not asha.should_continue("run", 1, 0.1, (1.0,))
    assert not asha.should_continue("run", 1, 0.15, (10.0,)) and asha.should_continue("run", 1, 0.9, (10.0,))


def test_the_warm_up_of_every_schedule() -> None:
    values = {"train.optim.warmup_iters": 9, "train.optim.warmup_epochs": 3}
    for method, epochs in (("linear", 9), ("constant", 9), ("cosine", 3), ("flat_cosine", 3), ("one_cycle", 3)):
        spec = values | {"train.optim.warmup_method": method}
        assert warmup_epochs(spec) == epochs and warmup_epochs(spec | {"train.optim.warmup_steps": 5}) == 0
