"""What a feature set refuses, and its file."""

import dataclasses
import gzip
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from reid_tune.errors import InputError
from reid_tune.evaluation.features import make_feature_set, read_features, write_features
from reid_tune.evaluation.score import score

from ..helpers.evaluation_reference import made_up


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
        ({"query_features": np.ones((4, 12), bool)}, "query_features has dtype bool; give floating-point"),
        ({"query_features": np.ones((4, 12), complex)}, "query_features has dtype complex128; give floating-point"),
        ({"query_features": np.full((4, 12), "1")}, "query_features has dtype <U1; give floating-point"),
        ({"query_features": np.full((4, 12), None)}, "query_features has dtype object; give floating-point"),
        ({"query_features": np.ones((12, 4), np.float32)[:, :4]}, "4 values but .* 12 rows; write the transpose"),
        ({"query_features": np.ones((4, 3, 2), np.float32)}, "query_features has shape .4, 3, 2.; give two dimensions"),
        ({"gallery_ids": np.array([1, 2, 3.5, 4, 5, 6])}, "row 2 of gallery_ids is 3.5; give whole numbers"),
        ({"gallery_ids": np.array([1, np.nan, 3, 4, 5, 6])}, "row 1 of gallery_ids is nan; give whole numbers"),
        ({"gallery_ids": np.array([1, 1e300, 3, 4, 5, 6])}, "row 1 of gallery_ids is 1e.300, but float64 rounds"),
        ({"gallery_ids": np.array(["a"] * 6)}, "row 0 of gallery_ids is 'a'; give whole numbers"),
        ({"gallery_ids": np.array(["1", "2", "9" * 19, "4", "5", "6"])}, "row 2 of gallery_ids is '9+'; give whole"),
        ({"gallery_ids": np.array([b"1", b"\xff", b"", b"4", b"5", b"6"])}, "row 1 of gallery_ids is b'.xff'; give"),
        ({"gallery_ids": np.ones(6, bool)}, "gallery_ids has dtype bool; give integers"),
        ({"gallery_ids": np.ones(6, "M8[s]")}, "gallery_ids has dtype datetime64.s.; give integers"),
        ({"gallery_ids": np.ones((2, 3), int)}, "gallery_ids has shape .2, 3.; give one dimension"),
        ({"gallery_ids": np.array(3)}, "gallery_ids has shape ..; give one dimension"),
        ({"gallery_ids": np.ones(0, int)}, "gallery_ids is empty"),
        ({"query_features": np.ones(4, np.float32)}, "query_features has shape .4,.; give two dimensions"),
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
        (
            {"query_cameras": np.array([1, 2, 2**63, 2**64 - 1], np.uint64)},
            "row 2 of query_cameras is 9223372036854775808, beyond int64",
        ),
    ],
)
def test_refused(changed, sentence):
    with pytest.raises(InputError, match=sentence):
        make_feature_set(**arrays(**changed))


@pytest.mark.parametrize("name", ["query_ids", "query_cameras", "gallery_ids", "gallery_cameras"])
@pytest.mark.parametrize(
    ("dtype", "limit"),
    [
        (np.float16, 2**11),
        (np.float32, 2**24),
        (np.float64, 2**53),
        (torch.float16, 2**11),
        (torch.float32, 2**24),
        (torch.float64, 2**53),
    ],
)
def test_floating_point_labels_that_may_be_rounded(name, dtype, limit):
    """Identities + 4,000 in float16 or + 20,000,000 in float32 silently became equal."""
    for sign in (1, -1):
        for values, is_good in (([1, 2, 3, limit - 1, 4, 5], True), ([1, 2, 3, limit + 1, 4, 5], False)):
            array = sign * np.array(values, np.int64)[: 4 if name.startswith("query") else 6]
            stored = torch.from_numpy(array).to(dtype) if isinstance(dtype, torch.dtype) else array.astype(dtype)
            if is_good:
                np.testing.assert_array_equal(getattr(make_feature_set(**arrays(**{name: stored})), name), array)
            else:
                with pytest.raises(InputError, match=rf"row 3 of {name} is .*\d, but \w+ rounds .* above {limit}, so"):
                    make_feature_set(**arrays(**{name: stored}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_labels_of_few_bits_are_refused(dtype):
    with pytest.raises(InputError, match=r"gallery_ids has dtype torch\..*, which rounds numbers above 256; give"):
        make_feature_set(**arrays(gallery_ids=torch.arange(6).to(dtype)))


def test_tensors_and_other_widths_are_taken():
    plain = arrays()
    tensors = {name: torch.from_numpy(array) for name, array in plain.items()}
    tensors["query_features"] = tensors["query_features"].bfloat16().requires_grad_()
    tensors["gallery_ids"] = tensors["gallery_ids"].int()
    result = dataclasses.asdict(make_feature_set(**tensors))
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
    with pytest.raises(InputError, match="the feature file .*absent.npz does not exist"):
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
    np.savez(path, **arrays(query_ids=np.ones(4, bool)))
    with pytest.raises(InputError, match="odd.npz: query_ids has dtype bool"):
        read_features(path)


@pytest.mark.parametrize("form", ["float32", "float16", "float64", ">f4", "fortran", "compressed", "unaligned"])
def test_features_of_any_form_come_back(tmp_path, form):
    wanted = arrays()
    stored = dict(wanted)
    for name in ("query_features", "gallery_features"):
        stored[name] = np.asfortranarray(stored[name]) if form == "fortran" else stored[name]
        if form in ("float16", "float64", ">f4"):
            stored[name] = stored[name].astype(form)
            wanted[name] = stored[name].astype(np.float32)
    for number in range(8 if form == "unaligned" else 1):
        path = tmp_path / f"{number}.npz"
        (np.savez_compressed if form == "compressed" else np.savez)(path, **{"x" * (number + 1): np.ones(1), **stored})
        found = read_features(path)
        for name, array in wanted.items():
            np.testing.assert_array_equal(getattr(found, name), array)
        assert score(found).as_dict() == score(make_feature_set(**wanted)).as_dict()


def test_stored_features_stay_in_the_file(tmp_path):
    np.savez(tmp_path / "f.npz", **arrays())
    features = read_features(tmp_path / "f.npz")
    for array in (features.query_features, features.gallery_features):
        assert isinstance(array.base, np.memmap) and not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_replaced_file_changes_nothing(tmp_path):
    write_features(tmp_path / "f.npz", made_up(seed=1))
    features = read_features(tmp_path / "f.npz")
    write_features(tmp_path / "f.npz", made_up(seed=2))
    np.testing.assert_array_equal(features.gallery_features, made_up(seed=1).gallery_features)


def test_unsigned_labels_are_taken():
    plain = arrays()
    unsigned = {name: array.astype("u8") if name.endswith("ids") else array for name, array in plain.items()}
    np.testing.assert_array_equal(make_feature_set(**unsigned).gallery_ids, plain["gallery_ids"])


def test_the_first_of_many_bad_rows_is_named():
    rows = np.ones((5000, 3), np.float32)
    rows[[1500, 4000], 1] = np.nan
    rows[700] = 0
    ones = np.ones(5000, int)
    with pytest.raises(InputError, match=r"row 1500 of query_features is not finite .* \(2 such rows\)"):
        make_feature_set(rows, ones, ones, rows, ones, ones)


def cut_short(path):
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not an archive"),
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(1000)),
        cut_short,
    ],
)
def test_other_files(tmp_path, write):
    write(tmp_path / "odd.npz")
    with pytest.raises(InputError, match="odd.npz is not an .npz file or is cut short; write the file again"):
        read_features(tmp_path / "odd.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_flipped_byte_is_found_or_of_no_effect(tmp_path, save):
    wanted, path = arrays(), tmp_path / "odd.npz"
    save(path, **wanted)
    content, refused = path.read_bytes(), 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = read_features(path)
        except InputError as error:
            refused += 1
            assert "odd.npz" in str(error) and "\n" not in str(error)
        else:
            for name, array in wanted.items():
                np.testing.assert_array_equal(getattr(found, name), array)
    assert refused > 0.6 * len(range(0, len(content), 7))


def header(**changed):
    """An array's bytes behind a header that says something else."""
    file = io.BytesIO()
    values = {"descr": "<f4", "fortran_order": False, "shape": (6, 12)} | changed
    np.lib.format.write_array_header_1_0(file, values)
    return file.getvalue() + np.ones((6, 12), np.float32).tobytes()


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"no array",
        header(shape=(2**40, 12)),
        header(shape=(5, 12)),
        header(shape=(-6, -12)),
        header(descr="<f8"),
        header().replace(b"'<f4'", b"'<q9'"),
        header().replace(b"{", b"("),
        header().replace(b"(6, 12)", b"(5L,12)"),  # as Python 2 wrote numbers
        header().replace(b"\x01\x00", b"\x09\x00", 1),
    ],
)
@pytest.mark.filterwarnings("error")
def test_members_that_are_no_array_are_named(tmp_path, member):
    path = tmp_path / "odd.npz"
    kept = arrays()
    del kept["gallery_features"]
    np.savez(path, **kept)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("gallery_features.npy", member)
    with pytest.raises(InputError, match="odd.npz: gallery_features is damaged .*; write the file again"):
        read_features(path)


@pytest.mark.parametrize("length", [b"\x00\x00", b"\x01\x00", b"\xff\x00", b"\x00\x04", b"\xff\xff"])
@pytest.mark.parametrize("name", ["query_features", "query_ids", "gallery_features"])
def test_a_damaged_name_of_a_member_does_not_fill_the_message(tmp_path, length, name):
    path = tmp_path / "odd.npz"
    np.savez(path, **arrays())
    content = path.read_bytes()
    start = content.index(name.encode()) - 4  # the length of the name in the member's header
    path.write_bytes(content[:start] + length + content[start + 2 :])
    with pytest.raises(InputError, match="odd.npz: .* is damaged .*; write the file again") as caught:
        read_features(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, "signalling"])
def test_values_that_are_not_finite_are_named_without_a_warning(dtype, value):
    features = np.ones((6, 12), dtype)
    if value == "signalling":  # a NaN whose highest bit of the fraction is 0, as damage makes it
        bits = {2: 0x7C01, 4: 0x7F800001, 8: 0x7FF0000000000001}[features.itemsize]
        features.view(features.dtype.str.replace("f", "u"))[3, 2] = bits
    else:
        features[3, 2] = value
    with pytest.raises(InputError, match="row 3 of gallery_features is not finite"):
        make_feature_set(**arrays() | {"gallery_features": features})


def array_file(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def json_file(path):
    path.write_text(json.dumps([{"img_path": "a.jpg", "embedding": [1.0]}]))


def fifo(path):
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.write_bytes(pickle.dumps([1, 2])), "is a pickle, which is never loaded, not an .npz file"),
        (array_file, "is one array of numpy.save, not an .npz file; write the file again"),
        (lambda path: torch.save(arrays(), path), "is a file of torch.save, not an .npz file: load it in Python, and"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" * 9), "is an HDF5 file, not an .npz file"),
        (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" * 9), "is a MATLAB file, not an .npz file"),
        (lambda path: path.write_bytes(gzip.compress(b"query")), "is a gzip file, not an .npz file"),
        (lambda path: path.write_bytes(b"PAR1" * 9), "is a parquet file, not an .npz file"),
        (json_file, "is a JSON file, not an .npz file"),
        (lambda path: np.savez(path, np.ones(3)), "has none of the arrays query_features, .*, but arr_0"),
        (lambda path: np.savez(path), "has none of the arrays query_features, .* but no array"),
        (
            lambda path: np.savez(path, **{f"a{n}": np.ones(1) for n in range(30)}),
            "has none .* and 10 more; rename",
        ),
        (lambda path: path.mkdir(), "is not a regular file; give an .npz file"),
        (fifo, "is not a regular file"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, write, sentence):
    write(tmp_path / "odd.npz")
    with pytest.raises(InputError, match=f"odd.npz {sentence}") as error:
        read_features(tmp_path / "odd.npz")
    assert "\n" not in str(error.value)


ORDER = ("query_features", "query_ids", "query_cameras", "gallery_features", "gallery_ids", "gallery_cameras")


@pytest.mark.parametrize(
    "names",
    [
        ("qf", "q_pids", "q_camids", "gf", "g_pids", "g_camids"),
        ("query_f", "query_label", "query_cam", "gallery_f", "gallery_label", "gallery_cam"),
        ("query_feat", "query_pid", "query_camid", "gallery_feat", "gallery_pid", "gallery_camid"),
        ("q_feats", "q_ids", "q_cams", "g_feats", "g_ids", "g_cams"),
        (
            "query_embeddings",
            "query_labels",
            "query_cameras",
            "gallery_embeddings",
            "gallery_labels",
            "gallery_cameras",
        ),
        ("queryFeatures", "queryIds", "queryCams", "galleryFeatures", "galleryIds", "galleryCams"),
        ("QUERY_EMB", "QUERY_PERSON_ID", "QUERY_CAMERA_ID", "GALLERY_EMB", "GALLERY_PERSON_ID", "GALLERY_CAMERA_ID"),
        ("q_f", "q_identities", "q_camera", "g_f", "g_identities", "g_camera"),
    ],
)
def test_names_of_other_programs_are_known(tmp_path, names):
    values = arrays()
    other = {"distmat": np.ones(3), "query_paths": np.array(["a", "b"]), "gallery_ids_of_tracks": np.ones(2)}
    np.savez(tmp_path / "f.npz", **{name: values[key] for name, key in zip(names, ORDER, strict=True)}, **other)
    read = read_features(tmp_path / "f.npz")
    for name, array in values.items():
        np.testing.assert_array_equal(getattr(read, name), array)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda values: values | {"qf": values["query_features"]}, None),  # the exact name decides
        (
            lambda values: renamed(values, "query_ids", "q_pids", "query_label"),
            "several arrays that may be query_ids",
        ),
        (
            lambda values: renamed(values, "query_ids"),
            "lacks query_ids; it must hold query_f.* and has gallery",
        ),
        (lambda values: renamed(values, "gallery_features", "features"), "lacks gallery_features; .* has features, g"),
        (lambda values: renamed(values, "gallery_cameras", "camids"), "lacks gallery_cameras"),
        (lambda values: renamed(values, "gallery_ids", "gallery_tracks"), "lacks gallery_ids"),
        (lambda values: renamed(values, "query_ids", "query id"), "lacks query_ids; .* query id"),
        (lambda values: renamed(values, "query_ids", "a\x1b[31m\n"), r"lacks query_ids; .*a\\x1b\[31m\\n"),
    ],
)
def test_unclear_names_are_refused(tmp_path, change, sentence):
    np.savez(tmp_path / "f.npz", **change(arrays()))
    if sentence is None:
        np.testing.assert_array_equal(read_features(tmp_path / "f.npz").query_ids, arrays()["query_ids"])
        return
    with pytest.raises(InputError, match=f"f.npz (has )?{sentence}") as error:
        read_features(tmp_path / "f.npz")
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def renamed(values, name, *names):
    return {key: value for key, value in values.items() if key != name} | dict.fromkeys(names, values[name])


def test_an_array_that_is_there_twice_is_refused(tmp_path):
    np.savez(tmp_path / "f.npz", **arrays())
    with zipfile.ZipFile(tmp_path / "f.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("query_ids.npy", b"")
    with pytest.raises(InputError, match="f.npz has the array query_ids twice"):
        read_features(tmp_path / "f.npz")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("query_ids", lambda array: array.astype(float)),
        ("query_ids", lambda array: array.astype(np.float16)),
        ("gallery_ids", lambda array: array.astype("U")),
        ("gallery_ids", lambda array: np.char.zfill(array.astype("U"), 4)),
        ("gallery_ids", lambda array: array.astype("S")),
        ("gallery_ids", lambda array: array[:, None]),
        ("gallery_ids", lambda array: array[None]),
        ("query_cameras", lambda array: array.astype(np.uint8)),
        ("query_cameras", lambda array: array.astype(">i4")),
        ("query_cameras", lambda array: np.repeat(array, 2)[::2]),
        ("query_features", lambda array: array[:, :, None, None]),
        ("query_features", lambda array: array[:, None]),
        ("query_features", lambda array: np.asfortranarray(array)),
        ("gallery_features", lambda array: array.astype(">f8")),
        ("gallery_features", lambda array: array[:, ::-1][:, ::-1]),
    ],
)
def test_clear_forms_are_taken(tmp_path, name, form):
    values = arrays()
    np.savez(tmp_path / "f.npz", **values | {name: form(values[name])})
    read = getattr(read_features(tmp_path / "f.npz"), name)
    np.testing.assert_array_equal(read, values[name])
    assert read.dtype == (np.float32 if name.endswith("features") else np.int64) and read.flags.c_contiguous


def test_whole_numbers_are_features_too():
    features = make_feature_set(**arrays(query_features=np.arange(48, dtype=np.int8).reshape(4, 12) - 20))
    assert features.query_features.dtype == np.float32 and features.query_features[1, 0] == -8
