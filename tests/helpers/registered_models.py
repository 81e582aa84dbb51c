"""Registered versions of a tiny model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from reid_tune.evaluation.differences import Difference
from reid_tune.tracking.champion_comparison import Verdict
from reid_tune.tracking.registry.register import RegisteredVersion, register_version

WEIGHT = np.random.default_rng(0).normal(size=(3 * 8 * 4, 5)).astype(np.float32)


def write_files(folder: Path) -> Mapping[str, Path]:
    """Write the files of a version whose model multiplies images [batch, 3, 8, 4] with a matrix."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "weight"], ["fc_pred"])],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 4])],
        [helper.make_tensor_value_info("fc_pred", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / "winner.onnx")
    (folder / "last.pth").write_bytes(b"weights")
    (folder / "spec.yaml").write_text("a: 1\n")
    return {
        "model.onnx": folder / "winner.onnx",
        "checkpoint.pth": folder / "last.pth",
        "spec.yaml": folder / "spec.yaml",
    }


def compared(gain: float, against: int) -> Verdict:
    """A comparison with a version, of which three repeats have the same gain."""
    text = f"{100 * gain:+.1f} points of mAP against version {against}"
    return Verdict(against, gain > 0, text, Difference(gain, gain, gain, 3))


def comparisons(*gains: float) -> list[Verdict | None]:
    """The comparisons of versions of which each has a gain over a common baseline and is compared with the best yet."""
    bests = [max(range(number), key=gains.__getitem__) if number else None for number in range(len(gains))]
    return [
        None if best is None else compared(gain - gains[best], best + 1)
        for gain, best in zip(gains, bests, strict=True)
    ]


def put(store: str, files: Mapping[str, Path], model: str, sweep: str, **kwargs: Any) -> RegisteredVersion:
    values = {"uid": f"uid-{sweep}", "description": "best", "tags": {"test/mAP": "0.9"}}
    return register_version(store, model, files=files, sweep=sweep, **(values | kwargs))


def holders(connection: Any, model: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in connection.get_registered_model(model).aliases.items()}
