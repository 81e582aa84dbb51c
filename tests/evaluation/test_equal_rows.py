"""Rows that are copies of earlier ones."""

import numpy as np
import pytest
import torch

from reid_tune.evaluation import equal_rows as copies
from reid_tune.evaluation.distances import UniqueRows


def numbered(rows: np.ndarray) -> list[int]:
    """The number of each row's values, by first appearance."""
    places: dict[bytes, int] = {}
    return [places.setdefault(row.tobytes(), len(places)) for row in rows + np.float32(0)]


def constant(values, factors):
    return torch.zeros(len(values), dtype=torch.int64)


def small(values, factors):
    return values.view(torch.int32).sum(1) % 3


@pytest.mark.parametrize("keys", [copies._keys, small, constant])
@pytest.mark.parametrize("dimension", [1, 2, 7])
def test_rows_are_numbered_as_a_dictionary_of_their_bytes_does(monkeypatch, keys, dimension):
    rng = np.random.default_rng(dimension)
    rows = rng.choice(np.float32([-2, -1.5, -0.0, 0.0, 1, 3]), (900, dimension))
    rows[~rows.any(1)] = 1
    monkeypatch.setattr(copies, "_keys", keys)
    joined = UniqueRows.joined([rows[:37], rows[37:300], rows[300:]])
    expected = numbered(rows)
    assert joined.position.tolist() == expected
    first = [expected.index(number) for number in range(max(expected) + 1)]
    unit = rows[first] / np.linalg.norm(rows[first].astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(joined.distinct.numpy(), unit, atol=1e-6)


def test_rows_with_different_values_have_different_keys():
    """Those of few bits as well, such as zeros and ones."""
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(2, size=(3000, 64)), axis=0).astype(np.float32)
    values = torch.from_numpy(np.concatenate([codes, rng.standard_normal((3000, 64), dtype=np.float32)]))
    keys = copies._keys(values, copies._factors(64))
    assert len(keys.unique()) == len(values)
    assert torch.equal(copies._keys(values.flip(0), copies._factors(64)), keys.flip(0))
