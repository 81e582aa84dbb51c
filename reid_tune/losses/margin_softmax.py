"""Identity losses with a margin: the cosines of a classifier become logits that are harder for the true identity."""

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["MarginSoftmax"]

# Margin and scale: Deng et al. (CVPR 2019), Wang et al. (CVPR 2018), and fast-reid's recipe SBS for the circle loss.
_PUBLISHED = {"arcface": (0.5, 64.0), "cosface": (0.35, 64.0), "circle": (0.35, 64.0)}


class MarginSoftmax:
    """Logits for a cross-entropy, from cosines between features and the learned direction of each identity.

    With c for a cosine, s for the scale and m for the margin the logits are

    - arcface: s cos(arccos(c) + m) for the true identity, s c for the others. Beyond an angle of pi - m, where the
      cosine would rise again, it is s (c - m sin m) for the true identity (Deng et al., CVPR 2019);
    - cosface: s (c - m) and s c (Wang et al., CVPR 2018);
    - circle: s max(0, 1 + m - c) (c - 1 + m) and s max(0, c + m) (c - m), without a gradient through the maxima
      (Sun et al., CVPR 2020).

    Args:
        kind: `model.id_loss_type`: arcface, cosface or circle.
        margin: Margin; None for the published one.
        scale: Scale; None for the published one.
    """

    def __init__(self, kind: str, margin: float | None, scale: float | None) -> None:
        published_margin, published_scale = _PUBLISHED[kind]
        self.margin = published_margin if margin is None else margin
        self.scale = published_scale if scale is None else scale
        self._true_and_other = {"arcface": self._arcface, "cosface": self._cosface, "circle": self._circle}[kind]

    def __call__(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Return float32 logits [rows, identities].

        Args:
            cosines: Cosines [rows, identities].
            labels: Classes [rows], int64.
        """
        true, other = self._true_and_other(cosines.float())
        is_true = functional.one_hot(labels, cosines.shape[1]).bool()
        return self.scale * torch.where(is_true, true, other)

    def _arcface(self, cosines: Tensor) -> tuple[Tensor, Tensor]:
        sines = (1 - cosines.square()).clamp(min=1e-12).sqrt()
        shifted = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        is_monotonic = cosines > -math.cos(self.margin)
        return torch.where(is_monotonic, shifted, cosines - self.margin * math.sin(self.margin)), cosines

    def _cosface(self, cosines: Tensor) -> tuple[Tensor, Tensor]:
        return cosines - self.margin, cosines

    def _circle(self, cosines: Tensor) -> tuple[Tensor, Tensor]:
        constant = cosines.detach()
        true = (1 + self.margin - constant).clamp(min=0) * (cosines - 1 + self.margin)
        return true, (constant + self.margin).clamp(min=0) * (cosines - self.margin)
