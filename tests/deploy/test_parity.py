from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.parity import MAX_DIFFERENCE, MIN_COSINE, Parity, measure_parity
from reid_tune.modeling.network import ReIDNet


class Answers:
    """Stands for a file: answers with given embeddings, by the first pixel of a crop, and notes the batches."""

    height, width = 1, 1

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.batches: list[tuple[int, int]] = []

    def embed(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        self.batches.append((len(images), batch_size))
        return self.rows[images[:, 0, 0, 0]]

    def normalise(self, crops: Tensor) -> Tensor:
        return crops.permute(0, 3, 1, 2) / 255


class Table(nn.Module):
    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.rows = torch.from_numpy(rows)

    def forward(self, images: Tensor) -> Tensor:
        return self.rows[(images[:, 0, 0, 0] * 255).round().long()]


def compare(wanted: np.ndarray, found: np.ndarray) -> tuple[Parity, Answers]:
    crops = np.zeros((len(wanted), 1, 1, 3), np.uint8)
    crops[:, 0, 0, 0] = np.arange(len(wanted))
    answers = Answers(found.astype(np.float32))
    network = cast(ReIDNet, Table(wanted.astype(np.float32)))
    return measure_parity(network, cast(OnnxModel, answers), crops), answers


def test_equal_embeddings_are_equal_and_batches_are_full() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 4))
    parity, answers = compare(rows, rows)
    assert parity.equal and parity.difference == 0 and parity.same_neighbour == 1
    assert parity.cosine == pytest.approx(1, abs=1e-12)
    assert answers.batches == [(5, 1), (6, 3), (16, 16)]
    assert parity.as_dict() == {
        "crops": 5,
        "synthetic": False,
        "batches": (1, 3, 16),
        "cosine": parity.cosine,
        "difference": 0.0,
        "same_neighbour": 1.0,
    }


def test_numbers_are_those_of_their_definitions() -> None:
    random = np.random.default_rng(0)
    wanted = random.normal(size=(20, 4)).astype(np.float32)
    found = (wanted + random.normal(size=(20, 4), scale=0.3)).astype(np.float32)
    cosine = lambda a, b: float(a @ b / np.sqrt((a @ a) * (b @ b)))  # noqa: E731
    nearest = lambda rows, i: max((j for j in range(20) if j != i), key=lambda j: cosine(rows[i], rows[j]))  # noqa: E731
    parity, _ = compare(wanted, found)
    assert parity.cosine == pytest.approx(min(cosine(a, b) for a, b in zip(wanted, found, strict=True)), abs=1e-6)
    assert parity.difference == pytest.approx(np.abs(wanted - found).max() / np.abs(wanted).max(), abs=1e-6)
    assert parity.same_neighbour == np.mean([nearest(wanted, i) == nearest(found, i) for i in range(20)])
    assert 0 < parity.same_neighbour < 1 and not parity.equal


def test_of_equally_near_neighbours_any_counts() -> None:
    wanted = np.array([[1, 0], [1, 1e-4], [1, -1e-4], [0, 1]])
    parity, _ = compare(wanted, wanted * [1, -1])
    assert parity.same_neighbour == 1 and not parity.equal


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 4))
    broken = rows.copy()
    broken[3, 2] = value
    assert not compare(rows, broken)[0].equal
    assert not compare(broken, broken)[0].equal
    assert not compare(np.zeros((5, 4)), np.zeros((5, 4)))[0].equal


@pytest.mark.parametrize("backbone", ["resnet18", "resnet_50", "swin_tiny_patch4_window7_224"])
def test_finds_any_weight_matrix_that_is_one_percent_off(exported: Any, tmp_path: Path, backbone: str) -> None:
    (network, _), path, right = exported(backbone)
    model = onnx.load(path)
    tables = ("relative_position", "index", "unsqueeze")  # of the attention, which are next to 0 without training
    matrices = [
        entry
        for entry in model.graph.initializer
        if len(entry.dims) > 1 and entry.data_type == onnx.TensorProto.FLOAT and not entry.name.startswith(tables)
    ]
    # A layer norm follows the first weights of a Swin and takes the factor out again.
    for weight in (matrices[len(matrices) // 2], matrices[-1]):
        original = weight.raw_data
        weight.raw_data = (onnx.numpy_helper.to_array(weight) * np.float32(1.01)).tobytes()
        onnx.save(model, tmp_path / "m.onnx")
        weight.raw_data = original
        wrong = measure_parity(network.eval(), OnnxModel(tmp_path / "m.onnx"))
        assert not wrong.equal, weight.name
        # The limits lie well between a right and a wrong file.
        assert 4 * right.difference < MAX_DIFFERENCE < wrong.difference / 4, weight.name
        assert 1 - right.cosine < (1 - MIN_COSINE) / 4
