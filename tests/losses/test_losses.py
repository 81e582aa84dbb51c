import math
from typing import Any

import pytest
import torch
from torch import Tensor

from reid_tune.config.load import build_experiment
from reid_tune.losses.metric_losses import (
    CenterLoss,
    batch_hard_triplet,
    cosine_distances,
    euclidean_distances,
    weighted_triplet,
)
from reid_tune.losses.training_loss import TrainingLoss

CASES = [
    [0, 0, 1, 1],
    [0, 1, 2, 3],
    [0, 0, 0, 0, 5, 5, 5, 5, 2, 2, 2, 2],
    [3, 1, 3, 1, 1, 2, 9],
]


def batch(labels: list[int], scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(labels))
    return scale * torch.randn(len(labels), 6, generator=generator), torch.tensor(labels)


def plain_triplet(
    features: list[list[float]], labels: list[int], margin: float | None, kind: str = "euclidean"
) -> float:
    losses = []
    for i, anchor in enumerate(features):
        positives, negatives = [], []
        for j, other in enumerate(features):
            (positives if labels[i] == labels[j] else negatives).append(plain_distance(anchor, other, kind))
        gap = max(positives) - min(negatives)
        losses.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("labels", CASES)
@pytest.mark.parametrize("margin", [0.3, 5.0, None])
def test_batch_hard_triplet_equals_a_double_loop(labels: list[int], margin: float | None) -> None:
    features, tensor = batch(labels)
    expected = plain_triplet(features.tolist(), labels, margin)
    assert float(batch_hard_triplet(euclidean_distances(features), tensor, margin)) == pytest.approx(expected, abs=1e-5)
    assert margin == 0.3 or expected > 0


def test_distances_equal_differences() -> None:
    features, _ = batch(CASES[2], scale=10)
    expected = (features[:, None] - features[None, :]).square().sum(2).sqrt()
    torch.testing.assert_close(euclidean_distances(features), expected, atol=0.02, rtol=1e-4)
    off_diagonal = ~torch.eye(len(features), dtype=torch.bool)
    torch.testing.assert_close(euclidean_distances(features)[off_diagonal], expected[off_diagonal])


@pytest.mark.parametrize("margin", [0.3, None])
def test_the_gradient_of_zero_distances_is_finite(margin: float | None) -> None:
    features = torch.zeros(4, 6, requires_grad=True)
    loss = batch_hard_triplet(euclidean_distances(features), torch.tensor([0, 0, 1, 1]), margin)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2) if margin is None else margin, abs=1e-5)
    assert features.grad is not None and features.grad.isfinite().all()
    doubled = torch.randn(2, 6).repeat_interleave(2, 0).requires_grad_()
    batch_hard_triplet(euclidean_distances(doubled), torch.tensor([0, 0, 1, 1]), 10.0).backward()
    assert doubled.grad is not None and doubled.grad.isfinite().all() and doubled.grad.abs().max() > 0


def test_the_gradient_is_that_of_the_differences() -> None:
    features, labels = batch(CASES[2])
    features = features.double().requires_grad_()

    def plain(values: Tensor) -> Tensor:
        distances = (values[:, None] - values[None, :]).square().sum(2).add(1e-12).sqrt()
        same = labels[:, None] == labels[None, :]
        gap = torch.where(same, distances, -torch.inf).amax(1) - torch.where(same, torch.inf, distances).amin(1)
        return (gap + 0.3).relu().mean()

    (ours,) = torch.autograd.grad(batch_hard_triplet(euclidean_distances(features), labels, 0.3), features)
    (expected,) = torch.autograd.grad(plain(features), features)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_half_precision_features_are_compared_in_float32() -> None:
    features, labels = batch(CASES[2])
    features = features.bfloat16()
    loss = batch_hard_triplet(euclidean_distances(features), labels, 0.3)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(plain_triplet(features.tolist(), CASES[2], 0.3), abs=1e-5)


def plain_distance(one: list[float], other: list[float], kind: str) -> float:
    if kind == "euclidean":
        return math.dist(one, other)
    return 1 - sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def plain_weighted_triplet(features: list[list[float]], labels: list[int], kind: str) -> float:
    losses = []
    for i, anchor in enumerate(features):
        means = []
        for is_positive, sign in ((True, 1), (False, -1)):
            pairs = [j for j in range(len(labels)) if j != i and (labels[j] == labels[i]) == is_positive]
            distances = [plain_distance(anchor, features[j], kind) for j in pairs]
            weights = [math.exp(sign * distance) for distance in distances]
            products = (weight * distance for weight, distance in zip(weights, distances, strict=True))
            means.append(sum(products) / sum(weights) if pairs else 0.0)
        losses.append(math.log1p(math.exp(means[0] - means[1])))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("labels", CASES)
@pytest.mark.parametrize("kind", ["euclidean", "cosine"])
def test_the_weighted_triplet_equals_a_double_loop(labels: list[int], kind: str) -> None:
    features, tensor = batch(labels)
    distances = (cosine_distances if kind == "cosine" else euclidean_distances)(features)
    expected = plain_weighted_triplet(features.tolist(), labels, kind)
    assert float(weighted_triplet(distances, tensor)) == pytest.approx(expected, abs=1e-5)


def test_the_weighted_triplet_is_finite_for_equal_and_for_distant_features() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    for features in (torch.zeros(4, 6), 1e4 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))):
        for distances in (euclidean_distances, cosine_distances):
            leaf = features.clone().requires_grad_()
            loss = weighted_triplet(distances(leaf), labels)
            loss.backward()
            assert loss.isfinite() and leaf.grad is not None and leaf.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["euclidean", "cosine"])
@pytest.mark.parametrize(("mining", "soft"), [("hard", False), ("hard", True), ("weighted", False), ("weighted", True)])
def test_weights_mining_and_distance_come_from_the_spec(kind: str, mining: str, soft: bool) -> None:
    labels = CASES[2]
    features, tensor = batch(labels)
    logits = 3 * torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(1))
    made = losses(
        train__identity_weight=0.25,
        train__triplet_weight=3.0,
        model__label_smoothing=0.3,
        train__triplet_mining=mining,
        train__triplet_distance=kind,
        model__no_margin=soft,
    )
    parts = made(features, logits, tensor)
    if mining == "weighted":
        expected = plain_weighted_triplet(features.tolist(), labels, kind)
    else:
        expected = plain_triplet(features.tolist(), labels, None if soft else 0.3, kind)
    assert float(parts["triplet"]) == pytest.approx(3 * expected, abs=1e-4)
    assert float(parts["identity"]) == pytest.approx(0.25 * plain_identity(logits, labels, 0.3), abs=1e-5)


def losses(**values: object) -> TrainingLoss:
    overrides = {key.replace("__", "."): value for key, value in values.items()}
    return TrainingLoss(build_experiment({}, overrides, "test"), classes=4, dimension=6)


def plain_identity(logits: Tensor, labels: list[int], smoothing: float) -> float:
    """Mean of -sum(q log p) with q = (1 - eps) onehot + eps / K."""
    total, classes = 0.0, logits.shape[1]
    for row, label in zip(logits.double().tolist(), labels, strict=True):
        normaliser = math.log(sum(math.exp(value) for value in row))
        target = [(1 - smoothing) * (k == label) + smoothing / classes for k in range(classes)]
        total -= sum(q * (value - normaliser) for q, value in zip(target, row, strict=True))
    return total / len(labels)


@pytest.mark.parametrize(("smooth", "smoothing"), [(True, 0.1), (False, 0.0)])
def test_identity_loss_with_and_without_label_smoothing(smooth: bool, smoothing: float) -> None:
    labels = [0, 0, 2, 2, 1, 1]
    features, tensor = batch(labels)
    logits = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    parts = losses(model__label_smooth=smooth)(features, logits, tensor)
    assert float(parts["identity"]) == pytest.approx(plain_identity(logits, labels, smoothing), abs=1e-5)
    assert losses(model__label_smooth=smooth)(features, logits.bfloat16(), tensor)["identity"].dtype == torch.float32


@pytest.mark.parametrize(
    ("sampler", "parts"),
    [("softmax", {"identity"}), ("triplet", {"triplet"}), ("softmax_triplet", {"identity", "triplet"})],
)
def test_the_sampler_selects_the_parts(sampler: str, parts: set[str]) -> None:
    features, labels = batch([0, 0, 1, 1])
    assert losses(dataset__sampler=sampler)(features, torch.zeros(4, 2), labels).keys() == parts


def test_margin_and_soft_margin_come_from_the_spec() -> None:
    labels = CASES[2]
    features, tensor = batch(labels)
    logits = torch.zeros(len(labels), 6)
    wide = losses(train__optim__triplet_loss_margin=2.0)(features, logits, tensor)["triplet"]
    assert float(wide) == pytest.approx(plain_triplet(features.tolist(), labels, 2.0), abs=1e-5)
    soft = losses(model__no_margin=True)(features, logits, tensor)["triplet"]
    assert float(soft) == pytest.approx(plain_triplet(features.tolist(), labels, None), abs=1e-5)


CENTER: dict[str, Any] = {"model__with_center_loss": True, "model__metric_loss_type": "triplet_center"}


@pytest.mark.parametrize(
    ("kind", "sampler", "parts"),
    [
        ("center", "softmax_triplet", {"identity", "center"}),
        ("center", "softmax", {"identity", "center"}),
        ("triplet_center", "softmax_triplet", {"identity", "triplet", "center"}),
        ("triplet_center", "triplet", {"triplet", "center"}),
    ],
)
def test_the_metric_loss_selects_center_loss(kind: str, sampler: str, parts: set[str]) -> None:
    features, labels = batch([0, 0, 1, 1])
    made = losses(**CENTER | {"model__metric_loss_type": kind, "dataset__sampler": sampler})
    assert made(features, torch.zeros(4, 4), labels).keys() == parts


def test_center_loss_equals_a_loop() -> None:
    labels = CASES[3]
    features, tensor = batch(labels)
    center = CenterLoss(10, 6, weight=0.25, rate=0.5, seed=3)
    distances = [
        sum((a - b) ** 2 for a, b in zip(row, center.centers[label].tolist(), strict=True))
        for row, label in zip(features.tolist(), labels, strict=True)
    ]
    assert float(center(features, tensor).detach()) == pytest.approx(0.25 * sum(distances) / len(distances), rel=1e-5)


def test_centers_step_by_their_own_rate_freed_of_the_weight() -> None:
    """With the mean over n rows, a centre moves by rate * 2 / n * sum of (centre - its features)."""
    labels = [0, 0, 0, 2]
    features, tensor = batch(labels)
    for weight in (1.0, 5e-4):
        center = CenterLoss(3, 6, weight=weight, rate=0.5, seed=0)
        before = center.centers.detach().clone()
        center(features, tensor).backward()
        center.step()
        expected = before.clone()
        for label in (0, 2):
            own = features[tensor == label]
            expected[label] -= 0.5 * 2 / len(labels) * (before[label] - own).sum(0)
        torch.testing.assert_close(center.centers.detach(), expected)
        assert torch.equal(center.centers[1], before[1]) and center.centers.grad is None


def test_center_loss_pulls_the_features_with_its_weight() -> None:
    features, labels = batch([0, 0, 1, 1])
    features = features.requires_grad_()
    center = CenterLoss(2, 6, weight=0.01, rate=0.5, seed=0)
    (gradient,) = torch.autograd.grad(center(features, labels), features)
    torch.testing.assert_close(gradient, 0.01 * 2 / 4 * (features - center.centers[labels]))


def test_center_loss_takes_half_precision_features() -> None:
    features, labels = batch([0, 0, 1, 1])
    center = CenterLoss(2, 6, weight=1.0, rate=0.5, seed=0)
    for dtype in (torch.float16, torch.bfloat16):
        loss = center(features.to(dtype), labels)
        loss.backward()
        center.step()
        assert loss.dtype == torch.float32 and center.centers.isfinite().all()


def test_center_loss_learns_the_centers_of_constant_features() -> None:
    features, labels = batch([0, 0, 0, 1, 1, 1])
    center = CenterLoss(2, 6, weight=5e-4, rate=0.5, seed=0)
    for _ in range(40):
        center(features, labels).backward()
        center.step()
    torch.testing.assert_close(center.centers[0].detach(), features[:3].mean(0), atol=1e-4, rtol=1e-4)
