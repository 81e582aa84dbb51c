"""Damaged and random feature files: a result or one sentence, and nothing else."""

import io
import json
import os
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reid_tune.errors import InputError
from reid_tune.evaluation.score import score
from reid_tune.tasks.common.embedding_files import ENDINGS
from reid_tune.tasks.common.feature_files import read_feature_file

from .test_feature_files import write

Change = tuple[float, int, bytes]

# `REID_TUNE_FUZZ=100000` sets the number of inputs of each test.
FUZZ = settings(
    max_examples=int(os.environ.get("REID_TUNE_FUZZ", "12")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# A change of a file: where it starts as a share of the size, bytes that are removed, and bytes that are put there.
changes = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12) | st.sampled_from([b"\xff" * 4, b"\0" * 8])),
    min_size=1,
    max_size=4,
)


def attempt(path: Path) -> None:
    """Read and score a file, which must end with a result or with one line about the file."""
    try:
        features = read_feature_file(path)
        assert 0 <= score(features).mAP <= 1
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000


def damage(content: bytes, where: list[Change]) -> bytes:
    for share, removed, inserted in where:
        start = int(share * len(content))
        content = content[:start] + inserted + content[start + removed :]
    return content


@cache
def original(ending: str) -> bytes:
    with TemporaryDirectory() as folder:
        return write(Path(folder) / f"f{ending}").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
@given(where=changes)
@FUZZ
def test_damaged_files(tmp_path: Path, ending: str, where: list[Change]) -> None:
    path = tmp_path / f"f{ending}"
    path.write_bytes(damage(original(ending), where))
    attempt(path)


@given(where=changes, member=st.integers(0, 5))
@FUZZ
def test_damaged_arrays_with_right_checksums(tmp_path: Path, where: list[Change], member: int) -> None:
    # The archive is whole, so that the change reaches the readers of headers and values.
    with (
        zipfile.ZipFile(io.BytesIO(original(".npz"))) as source,
        zipfile.ZipFile(tmp_path / "f.npz", "w") as target,
    ):
        for number, name in enumerate(source.namelist()):
            content = source.read(name)
            limited = [(share * 0.05, removed, inserted) for share, removed, inserted in where]
            target.writestr(name, damage(content, limited) if number == member else content)
    attempt(tmp_path / "f.npz")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))
entries = st.fixed_dictionaries(
    {"img_path": st.sampled_from(["query/1_c1.jpg", "test/1_c2.jpg", "test/2_c1.jpg", "test/x.jpg"]) | values},
    optional={"embedding": st.lists(st.floats(width=32) | st.integers(-3, 3), max_size=3) | values},
)


@given(content=st.lists(entries | values, max_size=5) | values)
@FUZZ
def test_random_json(tmp_path: Path, content: object) -> None:
    (tmp_path / "f.json").write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    attempt(tmp_path / "f.json")


arrays = st.builds(
    lambda dtype, shape, fill: np.full(shape, fill, object).astype(dtype, casting="unsafe"),
    st.sampled_from(["f2", ">f8", "i1", ">u8", "?", "c8", "U3", "S2"]),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 100),
)


@given(
    chosen=st.dictionaries(
        st.sampled_from(
            ["query_features", "query_ids", "query_cameras", "gallery_features", "gallery_ids", "gallery_cameras", "qf"]
        ),
        arrays,
        max_size=3,
    )
)
@FUZZ
def test_random_arrays(tmp_path: Path, chosen: dict[str, np.ndarray]) -> None:
    with np.load(io.BytesIO(original(".npz"))) as file:
        np.savez(tmp_path / "f.npz", **{**file, **chosen})
    attempt(tmp_path / "f.npz")
