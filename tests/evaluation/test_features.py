"""What a feature set refuses, and its file."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from reid_tune.errors import InputError
from reid_tune.evaluation.features import feature_set, read_features, write_features

from .reference import made_up


def arrays(**changed):
    return dataclasses.asdict(made_up(queries=4, gallery=6)) | changed


def with_row(value, row):
    array = np.ones((6, 12), np.float32)
    array[row] = value
    return array


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"query_ids": np.arange(3)}, "query_ids has 3 values but query_features has 4 rows"),
        ({"gallery_cameras": np.arange(7)}, "gallery_cameras has 7 values but gallery_features has 6 rows"),
        ({"query_features": np.ones((4, 12), int)}, "query_features has dtype int64; give floating-point"),
        ({"gallery_ids": np.ones(6)}, "gallery_ids has dtype float64; give integers"),
        ({"gallery_ids": np.array(["a"] * 6)}, "gallery_ids has dtype <U1; give integers"),
        ({"query_features": np.ones(4, np.float32)}, "query_features has shape .4,.; give two dimensions"),
        ({"query_cameras": np.ones((4, 1), int)}, "query_cameras has shape .4, 1.; give one dimension"),
        ({"gallery_features": with_row(np.nan, 3)}, "row 3 of gallery_features is not finite .* .1 such"),
        ({"gallery_features": with_row(-np.inf, slice(2, 4))}, "row 2 of gallery_features is not finite .* .2 such"),
        ({"gallery_features": with_row(0, 5)}, "row 5 of gallery_features is all zero"),
        ({"gallery_features": np.full((6, 12), 1e300)}, "row 0 of gallery_features is not finite"),
        (
            {"gallery_features": np.ones((6, 11), np.float32)},
            "gallery_features has 11 columns but query_features has 12",
        ),
        ({"query_features": np.ones((0, 12), np.float32)}, "query_features is empty"),
        ({"query_ids": [1, 2, 3, 4]}, "query_ids is a list"),
    ],
)
def test_refused(changed, sentence):
    with pytest.raises(InputError, match=sentence):
        feature_set(**arrays(**changed))


def test_tensors_and_other_widths_are_taken():
    plain = arrays()
    tensors = {name: torch.from_numpy(array) for name, array in plain.items()}
    tensors["query_features"] = tensors["query_features"].bfloat16().requires_grad_()
    tensors["gallery_ids"] = tensors["gallery_ids"].int()
    result = dataclasses.asdict(feature_set(**tensors))
    assert {array.dtype for array in result.values()} == {np.dtype("float32"), np.dtype("int64")}
    np.testing.assert_array_equal(result["gallery_features"], plain["gallery_features"])
    np.testing.assert_allclose(result["query_features"], plain["query_features"], rtol=0.01)


def test_file_comes_back(tmp_path):
    features = made_up()
    write_features(tmp_path / "new" / "features.npz", features)
    back = read_features(tmp_path / "new" / "features.npz")
    for name, array in dataclasses.asdict(features).items():
        np.testing.assert_array_equal(getattr(back, name), array)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["features.npz"]


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="there is no feature file .*absent.npz"):
        read_features(tmp_path / "absent.npz")


def test_missing_arrays_are_named(tmp_path):
    path = tmp_path / "part.npz"
    kept = arrays()
    del kept["query_ids"], kept["gallery_cameras"]
    np.savez(path, **kept)
    with pytest.raises(InputError, match="part.npz lacks query_ids, gallery_cameras"):
        read_features(path)


def test_objects_are_not_unpickled(tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, **arrays(query_ids=np.array([{}, 1, 2, 3], dtype=object)))
    with pytest.raises(InputError, match="query_ids holds Python objects"):
        read_features(path)


def test_refused_arrays_name_the_file(tmp_path):
    path = tmp_path / "odd.npz"
    np.savez(path, **arrays(query_ids=np.ones(4)))
    with pytest.raises(InputError, match="odd.npz: query_ids has dtype float64"):
        read_features(path)


def write_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def cut_short(path):
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:900])


def flipped(path):
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not an archive"),
        lambda path: path.write_bytes(pickle.dumps([1, 2])),
        write_array,
        cut_short,
        flipped,
    ],
)
def test_other_files(tmp_path, write):
    write(tmp_path / "odd.npz")
    with pytest.raises(InputError, match="odd.npz is not a"):
        read_features(tmp_path / "odd.npz")
