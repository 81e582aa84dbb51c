"""Feature files of inference are read again in each of its formats; others are refused in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from reid_tune.errors import InputError
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.score import score
from reid_tune.tasks.common.embedding_files import ENDINGS, Image, open_embeddings_file
from reid_tune.tasks.common.feature_files import print_warnings, read_feature_file
from reid_tune.tasks.score import run_score

Entries = list[dict[str, Any]]

RNG = np.random.default_rng(0)
IDENTITIES, CAMERAS = RNG.integers(1, 5, 30), RNG.integers(1, 4, 30)
EMBEDDINGS = RNG.standard_normal((30, 6), dtype=np.float32)
IMAGES = [
    Image(Path(f"data/{folder}/{identity:04d}_c{camera}s1_{number:06d}.jpg"), int(identity), int(camera), subset)
    for number, (identity, camera) in enumerate(zip(IDENTITIES, CAMERAS, strict=True))
    for subset, folder in ((("query", "query") if number < 10 else ("gallery", "bounding_box_test")),)
]


def write(path: Path, images: list[Image] = IMAGES) -> Path:
    with open_embeddings_file(path) as writer:
        for start in range(0, len(images), 7):
            writer(images[start : start + 7], EMBEDDINGS[start : start + 7])
    return path


def assert_complete(features: FeatureSet) -> None:
    np.testing.assert_array_equal(features.query_features, EMBEDDINGS[:10])
    np.testing.assert_array_equal(features.gallery_features, EMBEDDINGS[10:])
    np.testing.assert_array_equal(np.concatenate([features.query_ids, features.gallery_ids]), IDENTITIES)
    np.testing.assert_array_equal(np.concatenate([features.query_cameras, features.gallery_cameras]), CAMERAS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_inference_writes_is_read_again(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"f{ending}")
    features = read_feature_file(path)
    assert_complete(features)
    assert run_score(path, None, device="cpu").as_dict() == score(features).report() | {"junk": 0}


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_damaged_values_are_never_read(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"f{ending}")
    content, refused = path.read_bytes(), 0
    for position in range(4, len(content), 97):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            assert_complete(read_feature_file(path))
        except InputError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("ending", ENDINGS)
def test_images_without_identity_are_junk_in_each_format(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = list(IMAGES)
    for number, name, identity, camera in ((12, "somebody.jpg", -1, -1), (13, "-1_c3s1_1.jpg", -1, 3)):
        images[number] = Image(Path("data/bounding_box_test") / name, identity, camera, "gallery")
    features = read_feature_file(write(tmp_path / f"f{ending}", images))
    assert features.gallery_ids[2:4].tolist() == [-1, -1] and features.gallery_cameras[2:4].tolist() == [-1, 3]
    assert len(features.without_junk().gallery_ids) == 18
    assert run_score(tmp_path / f"f{ending}", None, device="cpu").as_dict()["junk"] == 2
    assert "2 of 20 gallery rows are junk (negative identity) and left out\n" in capsys.readouterr().err


def entries() -> Entries:
    return [
        {"img_path": str(image.path), "embedding": row.tolist()} for image, row in zip(IMAGES, EMBEDDINGS, strict=True)
    ]


def changed(number: int, **values: Any) -> Callable[[], Entries]:
    def make() -> Entries:
        rows = entries()
        rows[number] |= values
        return rows

    return make


def moved(query: str, gallery: str) -> Callable[[], Entries]:
    def make() -> Entries:
        folders = [query] * 10 + [gallery] * 20
        names = [Path(row["img_path"]).name for row in entries()]
        paths = [f"{folder}/{name}" for folder, name in zip(folders, names, strict=True)]
        return [row | {"img_path": path} for row, path in zip(entries(), paths, strict=True)]

    return make


@pytest.mark.parametrize(
    "make",
    [
        entries,
        lambda: entries()[10:] + entries()[:10],  # the gallery first
        changed(3, score=0.5),
        moved("sample_query", "sample_test"),
        moved("/data/market/query", "/data/market/gallery"),
        moved("Query", "query_gallery/test"),
    ],
)
def test_json_of_images_in_two_folders_is_read(tmp_path: Path, make: Callable[[], Entries]) -> None:
    (tmp_path / "f.json").write_text(json.dumps(make()))
    assert_complete(read_feature_file(tmp_path / "f.json"))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a JSON file or is damaged; write it again with inference"),
        (b"\xff\xfe\x00", "is not a JSON file"),
        (b"[" * 100_000, "is not a JSON file"),
        (b"[]", "is not a list of images"),
        (b'{"img_path": []}', "is not a list of images"),
        (b'["a"]', "has no img_path and embedding in entry 0"),
        (b'[{"img_path": "query/1_c1.jpg"}]', "has no img_path and embedding in entry 0"),
        (changed(4, embedding="abc"), "has no text img_path or no list of numbers in entry 4"),
        (changed(4, embedding=["1.0"] * 6), "no list of numbers in entry 4"),
        (changed(4, embedding=[10**400] * 6), "no list of numbers in entry 4"),
        (changed(4, embedding=[[1.0], 2.0]), "has no img_path and embedding in entry 4"),
        (changed(4, embedding=[True] * 6), "no list of numbers in entry 4"),
        (changed(4, embedding=[]), "entry 4"),
        (changed(4, embedding=[1.0] * 5), "has 5 values in entry 4, but 6 in the first"),
        (changed(4, embedding=[float("nan")] * 6), "row 4 of query_features is not finite"),
        (changed(4, embedding=[1e300] * 6), "row 4 of query_features is not finite"),
        (changed(4, embedding=[0] * 6), "row 4 of query_features is all zero"),
        (changed(4, img_path=7), "has no text img_path"),
        (changed(4, img_path=str(IMAGES[3].path)), "has the query image data/query/.* twice; write each image once"),
        (changed(4, img_path="other/0001_c1.jpg"), "does not say which images are queries"),
        (moved("a", "b"), "does not say which images are queries: .* but are in a, b; write"),
        (moved("query", "query"), "does not say which images are queries"),
        (moved("query1", "query2"), "does not say which images are queries"),
        (lambda: entries()[10:], "does not say which images are queries: .* are in data/bounding_box_test"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: bytes | Callable[[], Entries], sentence: str) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content()).encode()
    (tmp_path / "f.json").write_bytes(data)
    with pytest.raises(InputError, match=f"f.json:? .*{sentence}") as error:
        read_feature_file(tmp_path / "f.json")
    assert "\n" not in str(error.value)


def table(**columns: Any) -> pyarrow.Table:
    values = {
        "img_path": [str(image.path) for image in IMAGES],
        "identity": IDENTITIES,
        "camera": CAMERAS,
        "subset": [image.subset for image in IMAGES],
        "embedding": list(EMBEDDINGS),
    }
    return pyarrow.table({name: value for name, value in (values | columns).items() if value is not None})


FIXED = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(EMBEDDINGS.ravel()), 6)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"identity": IDENTITIES.astype(np.uint8), "camera": CAMERAS.astype(np.int16)},
        {"embedding": list(EMBEDDINGS.astype(np.float64))},
        {"embedding": FIXED},
        {"embedding": pyarrow.array(list(EMBEDDINGS), pyarrow.large_list(pyarrow.float32()))},
        {"subset": pyarrow.array([image.subset for image in IMAGES]).dictionary_encode()},
        {"confidence": np.ones(30)},
    ],
)
def test_parquet_of_other_types_is_read(tmp_path: Path, columns: dict[str, Any]) -> None:
    parquet.write_table(table(**columns), tmp_path / "f.parquet", row_group_size=8)
    assert_complete(read_feature_file(tmp_path / "f.parquet"))


def test_queries_and_gallery_may_be_one_folder(tmp_path: Path) -> None:
    paths = [str(image.path) for image in IMAGES]
    parquet.write_table(table(img_path=paths[:10] + paths[:10] + paths[20:]), tmp_path / "f.parquet")
    assert_complete(read_feature_file(tmp_path / "f.parquet"))
    parquet.write_table(table(img_path=paths[:20] + paths[10:20]), tmp_path / "f.parquet")
    with pytest.raises(InputError, match="has the gallery image data/bounding_box_test/.* twice; write each image"):
        read_feature_file(tmp_path / "f.parquet")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"subset": None}, "lacks subset; it must hold img_path, .* and has img_path, identity, camera, embedding"),
        ({"identity": IDENTITIES * 1.0}, "has values in identity that are not integers"),
        ({"camera": [str(camera) for camera in CAMERAS]}, "has values in camera that are not integers"),
        ({"identity": pyarrow.array([None, *IDENTITIES[1:].tolist()])}, "has values in identity that are not integers"),
        ({"identity": np.full(30, 2**63, np.uint64)}, "has identities or cameras beyond int64"),
        ({"img_path": np.arange(30)}, "has values in img_path that are not texts"),
        ({"img_path": ["a.jpg"] * 30}, "has the query image a.jpg twice; write each image once"),
        ({"subset": ["train"] * 30}, "has the subset 'train'; it must be query or gallery"),
        ({"subset": ["query"] * 30}, "has no gallery image; write queries and gallery into one file"),
        ({"embedding": np.ones(30)}, "has embeddings that are not lists of floating-point numbers"),
        ({"embedding": [[1, 2]] * 30}, "has embeddings that are not lists of floating-point numbers"),
        ({"embedding": [None, *EMBEDDINGS[1:]]}, "has embeddings that are not lists"),
        ({"embedding": [EMBEDDINGS[0][:4], *EMBEDDINGS[1:]]}, "has embeddings of 4 and of 6 values"),
        ({"embedding": list(EMBEDDINGS * np.float32(0))}, "row 0 of query_features is all zero"),
        ({"embedding": [[]] * 30}, ""),
    ],
)
def test_other_parquet_is_refused(tmp_path: Path, columns: dict[str, Any], sentence: str) -> None:
    parquet.write_table(table(**columns), tmp_path / "f.parquet")
    with pytest.raises(InputError, match=f"f.parquet:? .*{sentence}") as error:
        read_feature_file(tmp_path / "f.parquet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist; give another path"),
        (lambda path: path.write_bytes(b""), "is not a"),
        (lambda path: path.write_bytes(b"hello"), "is not a"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (lambda path: path.symlink_to(path), "f"),
    ],
)
def test_what_is_no_file_of_the_kind_is_refused(
    tmp_path: Path, ending: str, make: Callable[[Path], object], sentence: str
) -> None:
    path = tmp_path / f"f{ending}"
    make(path)
    with pytest.raises(InputError, match=sentence):
        read_feature_file(path)


def test_warnings_name_their_subject(capsys: pytest.CaptureFixture[str]) -> None:
    print_warnings(["one", "two"])
    print_warnings(["three"], "a.npz")
    print_warnings([])
    assert capsys.readouterr() == ("", "warning: one\nwarning: two\nwarning: a.npz: three\n")
