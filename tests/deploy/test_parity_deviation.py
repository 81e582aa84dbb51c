import numpy as np
import pytest

from reid_tune.deploy.parity import measure_deviation, same_neighbours


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


def nearest(rows: np.ndarray, index: int) -> list[int]:
    others = [other for other in range(len(rows)) if other != index]
    return sorted(others, key=lambda other: -cosine(rows[index], rows[other]))[:10]


def test_numbers_are_those_of_their_definitions() -> None:
    random = np.random.default_rng(0)
    wanted = random.normal(size=(30, 4)).astype(np.float32)
    found = (wanted + random.normal(size=(30, 4), scale=0.05)).astype(np.float32)
    apart = measure_deviation(wanted, found)
    assert apart.cosine == pytest.approx(min(cosine(a, b) for a, b in zip(wanted, found, strict=True)), abs=1e-6)
    assert apart.difference == pytest.approx(np.abs(wanted - found).max() / np.abs(wanted).max(), abs=1e-6)
    pairs = [(i, j) for i in range(30) for j in range(30)]
    shift = max(abs(cosine(wanted[i], wanted[j]) - cosine(found[i], found[j])) for i, j in pairs)
    assert apart.cosine_shift == pytest.approx(shift, abs=1e-6)
    same = np.mean([nearest(wanted, i) == nearest(found, i) for i in range(30)])
    assert same_neighbours(wanted, found, 0) == same and 0 < same < 1


def fan(*degrees: float) -> np.ndarray:
    """Embeddings at angles: the nearest of each is the nearest angle."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1)


def test_ten_neighbours_count_and_their_order() -> None:
    far = (np.arange(13.0) ** 2).tolist()
    assert same_neighbours(fan(*far), fan(*far), 0) == 1
    swapped = [*far[:2], far[3], far[2], *far[4:]]
    assert same_neighbours(fan(*far), fan(*swapped), 1e-6) == 0
    # The first crop's neighbours 11 and 12 change places, which others see.
    beyond = [*far[:11], far[12], far[11]]
    assert 0 < same_neighbours(fan(*far), fan(*beyond), 1e-6) < 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_with_fewer_crops_all_others_count(count: int) -> None:
    rows = np.random.default_rng(0).normal(size=(count, 4))
    assert same_neighbours(rows, rows, 0) == 1
    assert same_neighbours(rows, rows[::-1], 1e-6) == (0 if count == 5 else 1)


def test_neighbours_that_are_equally_near_may_change_places() -> None:
    wanted = np.array([[1, 0], [1, 1e-4], [1, -1e-4], [0, 1]])
    swapped = wanted[[0, 2, 1, 3]]
    assert same_neighbours(wanted, swapped, 1e-5) == 0.75  # to the last one they are not equally near
    assert same_neighbours(wanted, swapped, 3e-4) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_embeddings_without_a_direction_are_never_near(value: float) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 4))
    broken = rows.copy()
    broken[3] = value
    for left in (rows, broken):
        assert not measure_deviation(left, broken).cosine > 0
        assert same_neighbours(left, broken, 1e-5) < 1
