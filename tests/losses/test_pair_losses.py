"""Losses on all pairs against loops over anchors and pairs, with gradients from finite differences of these."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reid_tune.config.load import build_experiment
from reid_tune.losses.margin_softmax import MarginSoftmax
from reid_tune.losses.pair_losses import PairLoss
from reid_tune.losses.training_loss import TrainingLoss

Rows = list[list[float]]
# The cosine or distance of an anchor to its positives and to its negatives; margin; scale.
AnchorLoss = Callable[[list[float], list[float], float, float], float]


def circle(positives: list[float], negatives: list[float], margin: float, scale: float) -> float:
    negative = sum(math.exp(scale * max(0, c + margin) * (c - margin)) for c in negatives)
    positive = sum(math.exp(-scale * max(0, 1 + margin - c) * (c - (1 - margin))) for c in positives)
    return math.log(1 + negative * positive)


def multi_similarity(positives: list[float], negatives: list[float], margin: float, scale: float) -> float:
    hard_positives = [c for c in positives if c - margin < max(negatives)]
    hard_negatives = [c for c in negatives if c + margin > min(positives)]
    positive = sum(math.exp(-2 * (c - 0.5)) for c in hard_positives)
    negative = sum(math.exp(scale * (c - 0.5)) for c in hard_negatives)
    return math.log(1 + positive) / 2 + math.log(1 + negative) / scale


def supervised_contrastive(positives: list[float], negatives: list[float], margin: float, scale: float) -> float:
    total = sum(math.exp(scale * c) for c in positives + negatives)
    return -sum(math.log(math.exp(scale * c) / total) for c in positives) / len(positives)


def lifted(positives: list[float], negatives: list[float], margin: float, scale: float) -> float:
    positive, negative = sum(map(math.exp, positives)), sum(math.exp(margin - d) for d in negatives)
    return max(0.0, math.log(positive) + math.log(negative))


LOSSES: dict[str, AnchorLoss] = {
    "circle": circle,
    "multi_similarity": multi_similarity,
    "supervised_contrastive": supervised_contrastive,
    "lifted": lifted,
}


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def plain(kind: str, features: Rows, labels: list[int], margin: float, scale: float) -> float:
    pair = math.dist if kind == "lifted" else cosine
    losses = []
    for i, anchor in enumerate(features):
        others = [(labels[i] == labels[j], pair(anchor, row)) for j, row in enumerate(features) if i != j]
        positives, negatives = ([value for same, value in others if same is positive] for positive in (True, False))
        losses.append(LOSSES[kind](positives, negatives, margin, scale))
    return sum(losses) / len(losses)


def batch(labels: list[int]) -> tuple[Tensor, Tensor]:
    """Features of which those of an identity are alike, but not all."""
    generator = torch.Generator().manual_seed(len(labels))
    identities = torch.randn(10, 5, generator=generator)
    features = identities[torch.tensor(labels)] + 1.5 * torch.randn(len(labels), 5, generator=generator)
    return features, torch.tensor(labels)


CASES = [[0, 0, 1, 1], [3, 1, 3, 1, 1, 2, 9, 2, 9], [0, 0, 0, 0, 5, 5, 5, 5, 2, 2, 2, 2]]
VALUES = [
    ("circle", 0.25, 8.0),
    ("circle", 0.4, 2.0),
    ("multi_similarity", 0.1, 50.0),
    ("multi_similarity", 0.0, 5.0),
    ("supervised_contrastive", 0.0, 10.0),
    ("supervised_contrastive", 0.0, 1.0),
    ("lifted", 1.0, 1.0),
    ("lifted", 4.0, 1.0),
]


@pytest.mark.parametrize("labels", CASES)
@pytest.mark.parametrize(("kind", "margin", "scale"), VALUES)
def test_a_loss_is_its_formula(kind: str, margin: float, scale: float, labels: list[int]) -> None:
    features, tensor = batch(labels)
    expected = plain(kind, features.tolist(), labels, margin, scale)
    assert expected > 1e-3
    loss = PairLoss(kind, margin, scale)
    assert float(loss(features, tensor)) == pytest.approx(expected, rel=1e-5)
    half = features.bfloat16()
    assert loss(half, tensor).dtype == torch.float32
    assert float(loss(half, tensor)) == pytest.approx(plain(kind, half.tolist(), labels, margin, scale), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "margin", "scale"),
    [("multi_similarity", 0.1, 5.0), ("supervised_contrastive", 0, 10), ("lifted", 4.0, 1)],
)
def test_the_gradient_is_that_of_the_formula(kind: str, margin: float, scale: float) -> None:
    features, labels = batch(CASES[1])
    (gradient,) = torch.autograd.grad(PairLoss(kind, margin, scale)(features.requires_grad_(), labels), features)
    step = 1e-5
    for row in range(len(labels)):
        for column in range(features.shape[1]):
            values = []
            for sign in (step, -step):
                moved = features.tolist()
                moved[row][column] += sign
                values.append(plain(kind, moved, CASES[1], margin, scale))
            assert float(gradient[row, column]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-4)


def test_the_circle_loss_weighs_pairs_by_constants() -> None:
    """The gradient with respect to a cosine is the scale, the pair's constant and its share of the loss."""
    features, labels = batch(CASES[0])
    margin, scale = 0.25, 4.0
    unit = torch.nn.functional.normalize(features)
    constant = (unit @ unit.T).detach()
    same = labels[:, None] == labels[None, :]

    def weighted(values: Tensor) -> Tensor:
        rows = torch.nn.functional.normalize(values)
        cosines, losses = rows @ rows.T, []
        for i in range(len(labels)):
            exponents: dict[bool, list[Tensor]] = {True: [], False: []}
            for j in range(len(labels)):
                if i != j:
                    is_same = bool(same[i, j])
                    weight = max(0.0, float(1 + margin - constant[i, j] if is_same else constant[i, j] + margin))
                    offset = cosines[i, j] - (1 - margin if is_same else margin)
                    exponents[is_same].append((-scale if is_same else scale) * weight * offset)
            losses.append((1 + sum(map(torch.exp, exponents[True])) * sum(map(torch.exp, exponents[False]))).log())
        return torch.stack(losses).mean()

    features.requires_grad_()
    (expected,) = torch.autograd.grad(weighted(features), features)
    (gradient,) = torch.autograd.grad(PairLoss("circle", margin, scale)(features, labels), features)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    ("labels", "scale"), [([0, 0, 0, 0], 1.0), ([0, 1, 2, 3], 1.0), ([0, 0, 1, 1], 0.0), ([0, 0, 1, 1], 1e4)]
)
def test_extreme_batches_have_finite_gradients(kind: str, labels: list[int], scale: float) -> None:
    """One identity, no pair of an identity, equal features and large ones, with the published margins and scales."""
    features = (scale * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss = PairLoss(kind, None, None)(features, torch.tensor(labels))
    loss.backward()
    assert loss.isfinite() and features.grad is not None and features.grad.isfinite().all()


def test_weights_and_smoothing_apply_to_losses_with_margins() -> None:
    features, labels = batch(CASES[0])
    cosines = torch.rand(4, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    values = {
        "model.id_loss_type": "cosface",
        "model.label_smoothing": 0.3,
        "model.metric_loss_type": "lifted",
        "train.identity_weight": 0.25,
        "train.triplet_weight": 3.0,
    }
    parts = TrainingLoss(build_experiment({}, values, "test"), 3, 5)(features, cosines, labels)
    logits = MarginSoftmax("cosface", None, None)(cosines, labels)
    assert parts.keys() == {"identity", "pair"}
    torch.testing.assert_close(parts["identity"], 0.25 * functional.cross_entropy(logits, labels, label_smoothing=0.3))
    torch.testing.assert_close(parts["pair"], 3 * PairLoss("lifted", None, None)(features, labels))
