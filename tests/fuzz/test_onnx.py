"""Damaged and random ONNX files: they open, or are refused in one line."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.config.load import build_experiment
from reid_tune.deploy.onnx_embedder import open_embedder
from reid_tune.deploy.onnx_input import InputRequest

from ..helpers.onnx_files import write_exported, write_onnx
from .mutations import deep_json, fuzz, json_values, mutate, one_input, seeds

REQUEST = InputRequest.from_experiment(build_experiment({}, {}, "test"), "evaluate")
CROPS = np.random.default_rng(0).integers(0, 256, (3, 10, 8, 3), np.uint8)


@cache
def original(exported: bool) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        if exported:
            write_exported(path, 10, 8)
        else:
            write_onnx(path, ("b", 3, "h", "w"), metadata={"author": "Ultralytics", "imgsz": "[10, 8]"})
        return path.read_bytes()


@cache
def embeddings() -> np.ndarray:
    with TemporaryDirectory() as folder:
        write_exported(Path(folder) / "m.onnx", 10, 8)
        return open_embedder(Path(folder) / "m.onnx", REQUEST, threads=1).embed(CROPS)


def attempt(path: Path) -> None:
    with one_input(path):
        open_embedder(path, REQUEST, threads=1)


@fuzz(60)
@given(seed=seeds)
def test_damaged_exports_are_refused_or_give_the_same_embeddings(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(mutate(original(True), seed))
    expected = embeddings()
    with one_input(path):
        np.testing.assert_array_equal(open_embedder(path, REQUEST, threads=1).embed(CROPS), expected)


@fuzz(100)
@given(seed=seeds)
def test_damaged_files_of_other_tools(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(mutate(original(False), seed))
    attempt(path)


TEXTS = st.one_of(
    st.sampled_from(
        ["[10, 8]", "10", "[1e400, 8]", "[0, -1]", "[[10], 8]", "{}", "None", "9" * 5000, "[" * 300, "NaN"]
    ),
    st.sampled_from(["[0.5, 0.5, 0.5]", "[1e999]", "[null]", "bilinear", "float_nchw", "reid-tune", "\x1b[31m", ""]),
    st.text(max_size=8).filter(lambda text: text.isprintable()),
    json_values.map(json.dumps),
)
NAMES = ["channels", "mean", "std", "height", "width", "interpolation", "input_layout", "precision", "l2_normalized"]
NAMES += ["author", "imgsz", "threshold_cosine", "crc32", "stride", "names"]


@fuzz(40)
@given(metadata=st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=5), exported=st.booleans())
def test_random_metadata(tmp_path: Path, metadata: dict[str, str], exported: bool) -> None:
    path = tmp_path / "m.onnx"
    complete = write_exported(path, 10, 8) if exported else {}
    write_onnx(path, ("b", 3, "h", "w"), metadata=complete | metadata)
    attempt(path)


SIDE_FILE = {"img_size": [10, 8], "preprocess": "resize_pad", "model_kwargs": {"img_size": [10, 8]}}


@fuzz(15)
@given(text=deep_json | TEXTS | st.dictionaries(st.sampled_from([*SIDE_FILE]), json_values).map(json.dumps))
def test_random_side_files(tmp_path: Path, text: str) -> None:
    path = write_onnx(tmp_path / "m.onnx", ("b", 3, "h", "w"))
    (tmp_path / "m.onnx.metadata.json").write_text(text)
    attempt(path)


@pytest.mark.parametrize("exported", [True, False])
def test_the_originals_open(tmp_path: Path, exported: bool) -> None:
    (tmp_path / "m.onnx").write_bytes(original(exported))
    assert open_embedder(tmp_path / "m.onnx", REQUEST, threads=1).dimension == 5
