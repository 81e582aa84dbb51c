from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from reid_tune.data.image_spec import ImageSpec
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.parity import FP32_LIMITS, Parity, measure_deviation, measure_parity
from reid_tune.deploy.preprocessing import DEFAULT, ExportOptions, Preprocessing
from reid_tune.errors import RunFailedError
from reid_tune.modeling.network import ReIDNet

from .conftest import SMALL


class Answers:
    """Stands for a file: answers with given embeddings, by the first pixel of a crop, and notes the batches."""

    preprocessing = Preprocessing(ImageSpec(1, 1, "bilinear"), "float_nchw")

    def __init__(self, rows: np.ndarray, options: ExportOptions) -> None:
        self.rows, self.options = rows, options
        self.batches: list[tuple[int, int]] = []

    def embed(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        self.batches.append((len(images), batch_size))
        return self.rows[images[:, 0, 0, 0]]


class Table(nn.Module):
    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(rows))

    def forward(self, images: Tensor) -> Tensor:
        return self.rows[(images[:, 0, 0, 0] * 255).round().long()]


def compare(wanted: np.ndarray, found: np.ndarray, options: ExportOptions = DEFAULT) -> tuple[Parity, Answers]:
    crops = np.zeros((len(wanted), 1, 1, 3), np.uint8)
    crops[:, 0, 0, 0] = np.arange(len(wanted))
    answers = Answers(found.astype(np.float32), options)
    network = cast(ReIDNet, Table(wanted.astype(np.float32)))
    return measure_parity(network, cast(OnnxModel, answers), crops), answers


def rows(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 4))


def test_equal_embeddings_are_equal_and_batches_are_full() -> None:
    parity, answers = compare(rows(), rows())
    assert parity.equal and answers.batches == [(5, 1), (6, 3), (16, 16)]
    assert parity.cosine == pytest.approx(1, abs=1e-12)
    assert parity.as_dict() == {
        "crops": 5,
        "synthetic": False,
        "batches": (1, 3, 16),
        "cosine": parity.cosine,
        "difference": 0.0,
        "same_neighbours": 1.0,
        "min_cosine": 1 - 1e-6,
        "max_difference": 5e-4,
    }
    assert Parity(**parity.as_dict()) == parity


def test_the_worst_batch_counts() -> None:
    class Wrong(Answers):
        def embed(self, images: np.ndarray, batch_size: int) -> np.ndarray:
            return super().embed(images, batch_size) + (0.01 if batch_size == 3 else 0) * rows(1)

    wanted = rows(20).astype(np.float32)
    crops = np.arange(20, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    parity = measure_parity(cast(ReIDNet, Table(wanted)), cast(OnnxModel, Wrong(wanted, DEFAULT)), crops)
    apart = measure_deviation(wanted, wanted + 0.01 * rows(1))
    assert not parity.equal
    assert (parity.cosine, parity.difference) == pytest.approx((apart.cosine, apart.difference), abs=1e-6)


@pytest.mark.parametrize("part", ["cosine", "difference", "same_neighbours"])
def test_every_number_has_a_limit(part: str) -> None:
    right = {"cosine": 1 - 5e-7, "difference": 1e-4, "same_neighbours": 1.0}
    limits = {"min_cosine": FP32_LIMITS.cosine, "max_difference": FP32_LIMITS.difference}
    given: dict[str, Any] = {"crops": 5, "synthetic": False, "batches": (1,), **limits}
    assert Parity(**given, **right).equal
    wrong = {"cosine": 1 - 2e-6, "difference": 1e-3, "same_neighbours": 0.9}[part]
    for value in (wrong, np.nan):
        assert not Parity(**given, **(right | {part: value})).equal


def test_a_file_that_gives_norm_one_is_compared_with_norm_one() -> None:
    unit = rows() / np.linalg.norm(rows(), axis=1, keepdims=True)
    options = ExportOptions(l2_normalized=True)
    assert compare(rows(), unit, options)[0].equal
    assert not compare(rows(), rows(), options)[0].equal
    assert not compare(rows(), unit)[0].equal


def test_a_file_in_half_precision_has_the_limits_of_rounding() -> None:
    options, wanted = ExportOptions(precision="fp16"), rows(20).astype(np.float32)
    rounded = wanted.astype(np.float16).astype(np.float32)
    parity, _ = compare(wanted, rounded, options)
    apart = measure_deviation(wanted, rounded)
    assert parity.equal and not compare(wanted, rounded * 1.001, options)[0].equal
    assert parity.max_difference == pytest.approx(2 * apart.difference)
    assert 1 - parity.min_cosine == pytest.approx(4 * (1 - apart.cosine))


def test_a_network_beyond_half_precision_is_refused() -> None:
    with pytest.raises(RunFailedError, match="exceed 65,504"):
        compare(rows() * 1e6, rows() * 1e6, ExportOptions(precision="fp16"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    broken = rows()
    broken[3, 2] = value
    assert not compare(rows(), broken)[0].equal
    assert not compare(broken, broken)[0].equal
    assert not compare(np.zeros((5, 4)), np.zeros((5, 4)))[0].equal


@pytest.mark.parametrize(
    "backbone",
    [
        SMALL,
        *(
            pytest.param(name, marks=pytest.mark.integration)
            for name in ("resnet18", "resnet_50", "swin_tiny_patch4_window7_224")
        ),
    ],
)
def test_finds_any_weight_matrix_that_is_one_percent_off(exported: Any, tmp_path: Path, backbone: str) -> None:
    (network, _), path, right = exported(backbone)
    model = onnx.load(path)
    model.producer_name = "another"
    del model.metadata_props[-1]  # the checksum
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
        assert 4 * right.difference < FP32_LIMITS.difference < wrong.difference / 4, weight.name
        assert 1 - right.cosine < (1 - FP32_LIMITS.cosine) / 4
