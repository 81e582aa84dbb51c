import math

import pytest
import torch
from torch import Tensor

from reid_tune.losses.margin_softmax import MarginSoftmax

MARGINS = [("arcface", 0.5), ("arcface", 1.0), ("cosface", 0.35), ("circle", 0.25), ("arcface", 0.0)]


def true_logit(kind: str, cosine: float, margin: float) -> float:
    if kind == "arcface":
        angle = math.acos(cosine) + margin
        return math.cos(angle) if angle < math.pi else cosine - margin * math.sin(margin)
    return cosine - margin if kind == "cosface" else max(0, 1 + margin - cosine) * (cosine - (1 - margin))


def other_logit(kind: str, cosine: float, margin: float) -> float:
    return max(0, cosine + margin) * (cosine - margin) if kind == "circle" else cosine


def cosines() -> tuple[Tensor, list[int]]:
    """Cosines from -1 to 1; the first row's true one is beyond pi - m, the last row's is 1."""
    values = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = [0, 3, 1, 2, 2, 1]
    values[0, 0], values[1, 0], values[5, 1] = -0.99, -1.0, 1.0
    return values, labels


@pytest.mark.parametrize(("kind", "margin"), MARGINS)
def test_logits_are_the_formula(kind: str, margin: float) -> None:
    values, labels = cosines()
    logits = MarginSoftmax(kind, margin, 20.0)(values, torch.tensor(labels))
    for row, label in enumerate(labels):
        for column, cosine in enumerate(values[row].tolist()):
            function = true_logit if column == label else other_logit
            assert float(logits[row, column]) == pytest.approx(20 * function(kind, cosine, margin), abs=2e-4)
    assert MarginSoftmax(kind, margin, 20.0)(values.bfloat16(), torch.tensor(labels)).dtype == torch.float32


@pytest.mark.parametrize(("kind", "margin"), MARGINS)
def test_the_gradient_is_that_of_the_formula_and_finite(kind: str, margin: float) -> None:
    values, labels = cosines()
    values.requires_grad_()
    (gradient,) = torch.autograd.grad(MarginSoftmax(kind, margin, 1.0)(values, torch.tensor(labels)).sum(), values)
    assert gradient.isfinite().all()
    step = 1e-5
    for row, label in enumerate(labels[:5]):
        for column, cosine in enumerate(values[row].tolist()):
            if abs(cosine) == 1:
                continue
            function = true_logit if column == label else other_logit
            expected = (function(kind, cosine + step, margin) - function(kind, cosine - step, margin)) / (2 * step)
            if kind == "circle":  # whose factors are constants
                expected = max(0, 1 + margin - cosine) if column == label else max(0, cosine + margin)
            assert float(gradient[row, column]) == pytest.approx(expected, abs=1e-3)


def test_a_margin_of_zero_is_a_softmax_of_cosines() -> None:
    values, labels = cosines()
    for kind in ("arcface", "cosface"):
        torch.testing.assert_close(MarginSoftmax(kind, 0.0, 8.0)(values, torch.tensor(labels)), 8 * values)


@pytest.mark.parametrize("kind", ["arcface", "cosface", "circle"])
def test_the_true_logit_rises_with_its_cosine(kind: str) -> None:
    values = torch.linspace(-1, 1, 401)[:, None].expand(-1, 2).contiguous()
    logits = MarginSoftmax(kind, None, None)(values, torch.zeros(401, dtype=torch.int64))[:, 0]
    assert (logits.diff() > 0).all() if kind != "arcface" else (logits[:50].diff() > 0).all()
    assert (logits[1:] < MarginSoftmax("cosface", 0.0, None)(values, torch.zeros(401, dtype=torch.int64))[1:, 0]).all()
