"""Damaged and random feature files: a result or one sentence, and nothing else."""

import io
import json
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.evaluation.score import score
from reid_tune.tasks.common.embedding_files import ENDINGS
from reid_tune.tasks.common.feature_files import read_feature_file

from ..tasks.common.test_feature_files import write
from .mutations import deep_json, fuzz, json_values, mutate, one_input, seeds


def attempt(path: Path) -> None:
    """Read and score a file, which must end with a result or with one line about the file."""
    with one_input(path):
        features = read_feature_file(path)
        assert 0 <= score(features).mAP <= 1


@cache
def original(ending: str) -> bytes:
    with TemporaryDirectory() as folder:
        return write(Path(folder) / f"f{ending}").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
@fuzz(20)
@given(seed=seeds)
def test_damaged_files(tmp_path: Path, ending: str, seed: int) -> None:
    path = tmp_path / f"f{ending}"
    path.write_bytes(mutate(original(ending), seed))
    attempt(path)


@fuzz(40)
@given(seed=seeds, member=st.integers(0, 5))
def test_damaged_arrays_with_right_checksums(tmp_path: Path, seed: int, member: int) -> None:
    # The archive is whole, so that the change reaches the readers of headers and values.
    with (
        zipfile.ZipFile(io.BytesIO(original(".npz"))) as source,
        zipfile.ZipFile(tmp_path / "f.npz", "w") as target,
    ):
        for number, name in enumerate(source.namelist()):
            content = source.read(name)
            target.writestr(name, mutate(content[:128], seed) + content[128:] if number == member else content)
    attempt(tmp_path / "f.npz")


entries = st.fixed_dictionaries(
    {"img_path": st.sampled_from(["query/1_c1.jpg", "test/1_c2.jpg", "test/2_c1.jpg", "test/x.jpg"]) | json_values},
    optional={"embedding": st.lists(st.floats(width=32) | st.integers(-3, 3), max_size=3) | json_values},
)


@fuzz(20)
@given(content=st.lists(entries | json_values, max_size=5) | json_values)
def test_random_json(tmp_path: Path, content: object) -> None:
    (tmp_path / "f.json").write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    attempt(tmp_path / "f.json")


@fuzz(3)
@given(text=deep_json)
def test_deep_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.json").write_text(text)
    attempt(tmp_path / "f.json")


arrays = st.builds(
    lambda dtype, shape, fill: np.full(shape, fill, object).astype(dtype, casting="unsafe"),
    st.sampled_from(["f2", ">f8", "i1", ">u8", "?", "c8", "U3", "S2"]),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 100),
)


@fuzz(20)
@given(
    chosen=st.dictionaries(
        st.sampled_from(
            ["query_features", "query_ids", "query_cameras", "gallery_features", "gallery_ids", "gallery_cameras", "qf"]
        ),
        arrays,
        max_size=3,
    )
)
def test_random_arrays(tmp_path: Path, chosen: dict[str, np.ndarray]) -> None:
    with np.load(io.BytesIO(original(".npz"))) as file:
        np.savez(tmp_path / "f.npz", **{**file, **chosen})
    attempt(tmp_path / "f.npz")
