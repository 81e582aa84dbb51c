"""Damaged and random files of weights: they are read as they were, or refused in one sentence."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from reid_tune.checkpoints.damage import content_digest
from reid_tune.checkpoints.file_tensors import describe_content
from reid_tune.checkpoints.third_party_file import read_third_party_weights
from reid_tune.checkpoints.weight_search import NetworkKeys, find_weights

from .mutations import changed_json, fuzz, json_values, mutate, one_input, seeds

WEIGHTS = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "bn1.bias": torch.ones(2), "count": torch.tensor(7)}
CONTENT = {"state_dict": WEIGHTS, "epoch": 3, "names": ["a", None, 0.5]}
NETWORK = NetworkKeys({"conv1.weight": (2, 3), "bn1.bias": (2,), "blocks.0.attn.qkv.weight": (6, 2)}, ("conv1",), 4)


def checkpoint() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.pth"
        history = [{"epoch": 1, "loss": 0.5}]
        save_checkpoint(path, Checkpoint({"train": {"seed": 1}}, 1, [2, 5], history, dict(WEIGHTS), {"state": {}}))
        return path.read_bytes()


def torch_file(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(CONTENT, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def zip_of_method(method: int) -> bytes:
    """A file of torch.save that another program has packed again."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file(True))) as source, zipfile.ZipFile(buffer, "w", method) as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    return buffer.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "checkpoint": checkpoint,
    "torch": lambda: torch_file(True),
    "old torch": lambda: torch_file(False),
    "safetensors": lambda: safetensors.torch.save(WEIGHTS, {"format": "pt"}),
    **{
        name: lambda method=method: zip_of_method(method)  # type: ignore[misc]
        for name, method in (
            ("deflate", zipfile.ZIP_DEFLATED),
            ("bzip2", zipfile.ZIP_BZIP2),
            ("lzma", zipfile.ZIP_LZMA),
        )
    },
}
CHECKED = {"checkpoint", "torch"}  # files with checksums


@cache
def original(kind: str) -> bytes:
    return FILES[kind]()


@pytest.mark.parametrize("kind", FILES)
@fuzz(40)
@given(seed=seeds)
def test_damaged_weights(tmp_path: Path, kind: str, seed: int) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(original(kind))
    with one_input(path):
        digest = content_digest(read_third_party_weights(path))
    path.write_bytes(mutate(original(kind), seed))
    with one_input(path):
        content = read_third_party_weights(path)
        assert kind not in CHECKED or content_digest(content) == digest
        describe_content(content), find_weights(content, NETWORK)


@pytest.mark.parametrize("kind", FILES)
@fuzz(20)
@given(seed=seeds)
def test_damaged_checkpoints(tmp_path: Path, kind: str, seed: int) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(mutate(original(kind), seed))
    with one_input(path):
        assert torch.equal(load_checkpoint(path).model["conv1.weight"], WEIGHTS["conv1.weight"])


@fuzz(60)
@given(seed=seeds, member=st.integers(0, 12))
def test_damaged_records_with_right_checksums(tmp_path: Path, seed: int, member: int) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(io.BytesIO(original("torch"))) as source, zipfile.ZipFile(path, "w") as target:
        for number, name in enumerate(source.namelist()):
            content = source.read(name)
            target.writestr(name, mutate(content, seed) if number == member % len(source.namelist()) else content)
    with one_input(path):
        content = read_third_party_weights(path)
        describe_content(content), find_weights(content, NETWORK)


HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]},
}


@fuzz(60)
@given(header=changed_json(HEADER), length=st.sampled_from([0, 0, 0, 1, -1, 2**40]))
def test_changed_headers_of_safetensors(tmp_path: Path, header: object, length: int) -> None:
    text = json.dumps(header).encode(errors="surrogatepass")
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", max(0, len(text) + length)) + text + bytes(32))
    with one_input(path):
        content = read_third_party_weights(path)
        describe_content(content), find_weights(content, NETWORK)


tensors = st.sampled_from([torch.ones(2), torch.ones(2, 3), torch.tensor(1), torch.zeros(0), torch.ones(6, 2).half()])
keys = st.one_of(
    st.sampled_from(
        ["", ".", "conv1.weight", "module.bn1.bias", "_orig_mod.", "blocks.0.attn.in_proj_weight", 0, None]
    ),
    st.sampled_from(["stages.0.blocks.0.attn.w_msa.qkv.weight", "visual.conv1", "k.", "ema.x", "head.weight", 1.5]),
    st.text(max_size=6),
)
contents: st.SearchStrategy[Any] = st.recursive(
    tensors | json_values,
    lambda inner: st.dictionaries(keys, inner, max_size=6) | st.lists(inner, max_size=3) | st.tuples(inner),
    max_leaves=8,
)


@fuzz(60)
@given(content=st.dictionaries(keys, contents, max_size=6))
def test_tensors_below_any_names(content: dict[Any, Any]) -> None:
    with one_input():
        assert "\n" not in describe_content(content)
        match = find_weights(content, NETWORK)
        assert all(isinstance(tensor, torch.Tensor) for tensor in match.tensors.values())


@fuzz(40)
@given(content=contents, zipped=st.booleans())
def test_any_content(tmp_path: Path, content: Any, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with one_input(path):
        read_third_party_weights(path)
    with one_input(path):
        load_checkpoint(path)


@fuzz(40)
@given(data=st.data())
def test_checkpoints_whose_parts_have_other_kinds(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(original("checkpoint"))
    content = torch.load(path, weights_only=True)
    del content["digest"]
    content |= data.draw(st.dictionaries(st.sampled_from([*content, "more"]), contents, max_size=2))
    for key in data.draw(st.sets(st.sampled_from([*content]), max_size=1)):
        del content[key]
    torch.save(content | {"digest": content_digest(content)}, path)
    with one_input(path):
        load_checkpoint(path)
