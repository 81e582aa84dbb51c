from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reid_tune.data.records import ImageRecord
from reid_tune.data.splits import Split, split_by_identity
from reid_tune.errors import InputError


def crops(identity: int, cameras: list[int], root: str = "data") -> list[ImageRecord]:
    return [
        ImageRecord(Path(root) / f"{identity:04d}_c{camera}_{number:03d}.jpg", identity, camera)
        for number, camera in enumerate(cameras)
    ]


def many(identities: int, root: str = "data") -> list[ImageRecord]:
    rng = np.random.default_rng(0)
    return [
        record
        for identity in range(1, identities + 1)
        for record in crops(identity, rng.integers(1, 7, rng.integers(1, 20)).tolist(), root)
    ]


def names(split: Split) -> list[list[str]]:
    return [[record.path.name for record in part] for part in (split.train, split.query, split.gallery)]


def has_match(query: ImageRecord, gallery: tuple[ImageRecord, ...]) -> bool:
    return any(image.identity == query.identity and image.camera != query.camera for image in gallery)


def test_parts_make_the_whole_and_share_no_identity() -> None:
    records = many(300)
    split = split_by_identity(records, seed=0)
    train, query, gallery = ({record.identity for record in part} for part in (split.train, split.query, split.gallery))
    assert Counter(split.train + split.query + split.gallery) == Counter(records)
    assert not train & (query | gallery)
    assert split.held_out == len(query | gallery)
    assert query < gallery


def test_about_the_fraction_is_held_out() -> None:
    records = [record for identity in range(1, 1001) for record in crops(identity, [1, 1, 2, 2])]
    for seed in range(3):
        assert abs(split_by_identity(records, seed=seed).held_out - 200) < 40
        assert abs(split_by_identity(records, seed=seed, fraction=0.5).held_out - 500) < 50


def test_one_query_per_identity_and_camera_each_with_a_match() -> None:
    split = split_by_identity(many(400), seed=1)
    pairs = Counter((record.identity, record.camera) for record in split.query)
    assert max(pairs.values()) == 1
    assert all(has_match(query, split.gallery) for query in split.query)


def test_no_query_is_given_away() -> None:
    """A pair without a query would, with any of its images, leave a query without match."""
    split = split_by_identity(many(400), seed=1)
    pairs = {(record.identity, record.camera) for record in split.query}
    for image in split.gallery:
        if (image.identity, image.camera) not in pairs:
            rest = tuple(record for record in split.gallery if record != image)
            own = [query for query in [*split.query, image] if query.identity == image.identity]
            assert not all(has_match(query, rest) for query in own)


@pytest.mark.parametrize(
    ("cameras", "queries"),
    [
        ([1], 0),
        ([1, 1, 1], 0),
        ([1, 2], 1),
        ([1, 2, 2, 2], 1),
        ([1, 2, 3], 2),
        ([1, 1, 2, 3], 2),
        ([1, 1, 2, 2], 2),
        ([1, 1, 2, 2, 3], 3),
    ],
)
def test_small_identities(cameras: list[int], queries: int) -> None:
    others = [record for identity in range(2, 40) for record in crops(identity, [1, 1, 2, 2])]
    for seed in range(60):
        split = split_by_identity(crops(1, cameras) + others, seed=seed)
        if any(record.identity == 1 for record in split.gallery):
            assert sum(record.identity == 1 for record in split.query) == queries
            return
    pytest.fail("identity 1 was never held out")


def test_place_order_and_other_identities_do_not_matter() -> None:
    records = many(200)
    expected = split_by_identity(records, seed=0)
    assert names(split_by_identity(many(200, "elsewhere/exp7_c3"), seed=0)) == names(expected)
    shuffled = [records[index] for index in np.random.default_rng(1).permutation(len(records))]
    order = [record.path.name for record in shuffled]
    assert names(split_by_identity(shuffled, seed=0)) == [sorted(part, key=order.index) for part in names(expected)]
    fewer = split_by_identity([record for record in records if record.identity % 2], seed=0)
    assert names(fewer) == [[name for name in part if int(name[:4]) % 2] for part in names(expected)]
    assert names(split_by_identity(records, seed=1)) != names(expected)


def test_splits_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="two cameras.*dataset.validation_seed"):
        split_by_identity(
            [record for identity in range(1, 100) for record in crops(identity, [1 + identity % 2] * 2)], seed=0
        )
    with pytest.raises(InputError, match="no identity for training"):
        split_by_identity(many(5), seed=0, fraction=1.0)


def test_one_camera_is_said_to_be_one() -> None:
    records = [
        ImageRecord(Path(f"{identity:04d}_c1s1_{n:06d}_00.jpg"), identity, 1)
        for identity in range(1, 30)
        for n in range(3)
    ]
    with pytest.raises(InputError, match="all training images are of one camera"):
        split_by_identity(records, seed=0)
