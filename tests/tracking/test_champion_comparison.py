from pathlib import Path

import numpy as np
import pytest

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import mean_difference
from reid_tune.tracking.champion_comparison import HoldoutResult, compare, read_repeats, write_repeats

QUERIES = np.array(["0002_c1.jpg", "0002_c2.jpg", "0007_c1.jpg", "0011_c3.jpg", "größe_\udcff.jpg"])
IDENTITIES = np.array([2, 2, 7, 11, 13])


def repeat(split: str, seed: int, order: list[int] | None = None, gain: float = 0.0) -> HoldoutResult:
    values = np.random.default_rng(seed).random(5) + gain
    rows = np.array(order or range(5))
    return HoldoutResult(split, QUERIES[rows], IDENTITIES[rows], values[rows])


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [repeat("data/1/0.2", 1), repeat("data/2/0.2", 2, [4, 0, 2])]
    write_repeats(tmp_path / "confirm.npz", written)
    read = read_repeats(tmp_path / "confirm.npz")
    assert [result.split for result in read] == ["data/1/0.2", "data/2/0.2"]
    for one, other in zip(written, read, strict=True):
        assert one.queries.tolist() == other.queries.tolist()
        np.testing.assert_array_equal(one.identities, other.identities)
        np.testing.assert_array_equal(one.average_precision, other.average_precision)


def test_the_difference_pairs_queries_by_name_over_common_splits() -> None:
    champion = [repeat("a", 1), repeat("b", 2), repeat("c", 3)]
    challenger = [repeat("x", 4), repeat("c", 5, [3, 1, 4, 0, 2]), repeat("a", 6)]
    pairs = []
    for split in ("c", "a"):
        new, old = (next(item for item in side if item.split == split) for side in (challenger, champion))
        old_values = dict(zip(old.queries, old.average_precision, strict=True))
        rows = sorted(range(5), key=lambda row, new=new: new.queries[row])
        differences = [new.average_precision[row] - old_values[new.queries[row]] for row in rows]
        pairs.append((np.array(differences), new.identities[rows]))
    result = compare(challenger, champion)
    assert result is not None and result.repeats == 2
    assert result.mean == pytest.approx(np.mean([values.mean() for values, _ in pairs]))
    expected = mean_difference(pairs)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))


def test_a_steady_gain_is_beyond_noise_and_its_loss_is_not() -> None:
    base, better = [repeat(key, 1) for key in "abc"], [repeat(key, 1, gain=0.1) for key in "abc"]
    gained, lost = compare(better, base), compare(base, better)
    assert gained is not None and gained.is_significant and gained.mean == pytest.approx(0.1)
    assert lost is not None and not lost.is_significant


@pytest.mark.parametrize(
    "champion", [[], [repeat("b", 1)], [repeat("a", 1, [0, 1, 2])], [repeat("a", 1, [0, 1, 2, 3, 3])]]
)
def test_other_splits_or_other_queries_are_not_compared(champion: list[HoldoutResult]) -> None:
    assert compare([repeat("a", 2)], champion) is None
    assert compare(champion, [repeat("a", 2)]) is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "confirm.npz"
    with pytest.raises(InputError, match="confirm.npz"):
        read_repeats(path)
    good = {
        "split": np.array(["a"]),
        "repeat": np.zeros(5, int),
        "query": QUERIES,
        "identity": IDENTITIES,
        "average_precision": np.zeros(5),
    }
    wrong = [
        {"query": QUERIES[:3]},
        {"average_precision": np.zeros((5, 1))},
        {"identity": np.zeros(5)},
        {"split": np.array("a")},
    ]
    for change in wrong:
        np.savez(path, **(good | change))
        with pytest.raises(InputError, match="does not hold the results of a sweep's stage confirm"):
            read_repeats(path)
    np.savez(path, **good)
    assert len(read_repeats(path)[0].queries) == 5
