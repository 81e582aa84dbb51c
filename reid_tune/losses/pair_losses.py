"""Metric losses on all pairs of a batch: circle, multi-similarity, supervised contrastive and lifted loss."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from reid_tune.losses.metric_losses import euclidean_distances

__all__ = ["PairLoss"]

# Stands for minus infinity in the exponent of a left-out pair; its gradient is 0, and not undefined.
_LEFT_OUT = -1e9
# Exponent and threshold of the multi-similarity loss that its publication keeps on all data sets.
_POSITIVE_SCALE, _THRESHOLD = 2.0, 0.5
# Margin and scale: Sun et al. (CVPR 2020), Wang et al. (CVPR 2019), Khosla et al. (NeurIPS 2020) and Hermans et al.
# (2017); a margin of 0 or a scale of 1 takes no part.
_PUBLISHED = {
    "circle": (0.25, 128.0),
    "multi_similarity": (0.1, 50.0),
    "supervised_contrastive": (0.0, 10.0),
    "lifted": (1.0, 1.0),
}


class PairLoss:
    """Mean loss of all anchors, each with its positives P (same identity) and negatives N in the batch.

    With c for the cosine of a pair's features, d for their Euclidean distance, g for the scale and m for the margin the
    loss of an anchor is

    - circle: ln(1 + sum_N exp(g max(0, c + m) (c - m)) sum_P exp(-g max(0, 1 + m - c) (c - 1 + m))), without a gradient
      through the maxima;
    - multi_similarity: ln(1 + sum_P exp(-2 (c - 0.5))) / 2 + ln(1 + sum_N exp(g (c - 0.5))) / g, over the positives
      with c - m below the nearest negative's and the negatives with c + m above the farthest positive's;
    - supervised_contrastive: the mean over P of ln(sum_(P and N) exp(g c')) - g c; 1 / g is the temperature;
    - lifted: max(0, ln sum_P exp(d) + ln sum_N exp(m - d)), the generalised form.

    Args:
        kind: `model.metric_loss_type`.
        margin: Margin; None for the published one.
        scale: Scale; None for the published one.
    """

    def __init__(self, kind: str, margin: float | None, scale: float | None) -> None:
        published_margin, published_scale = _PUBLISHED[kind]
        self.margin = published_margin if margin is None else margin
        self.scale = published_scale if scale is None else scale
        self._anchor_losses: Callable[[Tensor, Tensor, Tensor], Tensor] = {
            "circle": self._circle,
            "multi_similarity": self._multi_similarity,
            "supervised_contrastive": self._supervised_contrastive,
            "lifted": self._lifted,
        }[kind]

    def __call__(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a float32 scalar.

        Args:
            features: Features [batch, dimension] of any precision, not normalised.
            labels: Identities [batch]; each has two images, and a negative, in the batch.
        """
        same = labels[:, None] == labels[None, :]
        positives = same & ~torch.eye(len(labels), dtype=torch.bool, device=same.device)
        return self._anchor_losses(features.float(), positives, ~same).mean()

    def _circle(self, features: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        cosines, margin = _cosines(features), self.margin
        constant = cosines.detach()
        positive = -self.scale * (1 + margin - constant).clamp(min=0) * (cosines - 1 + margin)
        negative = self.scale * (constant + margin).clamp(min=0) * (cosines - margin)
        return functional.softplus(_log_sum_exp(positive, positives) + _log_sum_exp(negative, negatives))

    def _multi_similarity(self, features: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        cosines = _cosines(features)
        constant = cosines.detach()
        nearest_negative = constant.masked_fill(~negatives, -torch.inf).amax(1, keepdim=True)
        farthest_positive = constant.masked_fill(~positives, torch.inf).amin(1, keepdim=True)
        positives = positives & (constant - self.margin < nearest_negative)
        negatives = negatives & (constant + self.margin > farthest_positive)
        positive = _log_sum_exp(-_POSITIVE_SCALE * (cosines - _THRESHOLD), positives)
        negative = _log_sum_exp(self.scale * (cosines - _THRESHOLD), negatives)
        return functional.softplus(positive) / _POSITIVE_SCALE + functional.softplus(negative) / self.scale

    def _supervised_contrastive(self, features: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        logits = self.scale * _cosines(features)
        log_shares = logits - _log_sum_exp(logits, positives | negatives)[:, None]
        return -(log_shares * positives).sum(1) / positives.sum(1).clamp(min=1)

    def _lifted(self, features: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        distances = euclidean_distances(features)
        return functional.relu(_log_sum_exp(distances, positives) + _log_sum_exp(self.margin - distances, negatives))


def _cosines(features: Tensor) -> Tensor:
    unit = functional.normalize(features)
    return unit @ unit.T


def _log_sum_exp(exponents: Tensor, mask: Tensor) -> Tensor:
    """Return ln of the sum of exp over the selected pairs of each row; about -1e9 without any."""
    return exponents.masked_fill(~mask, _LEFT_OUT).logsumexp(1)
