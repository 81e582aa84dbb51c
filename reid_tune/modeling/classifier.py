"""Classifiers of the training identities, which are not exported."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_tune.config.model import Model

__all__ = ["CosineClassifier", "build_classifier"]


class CosineClassifier(nn.Module):
    """Cosines between features and learned directions, of which each identity has one or several.

    With several, the nearest decides, so that an identity may look different from camera to camera (Deng et al., ECCV
    2020, sub-center ArcFace).

    Args:
        dimension: Dimension of the features.
        classes: Number of identities.
        centers: Number of directions of each identity.
    """

    def __init__(self, dimension: int, classes: int, centers: int) -> None:
        super().__init__()
        self.centers = centers
        self.weight = nn.Parameter(torch.empty(classes * centers, dimension))
        # Rows of length 1 on average: the learning rate is then about the angle of a step.
        nn.init.normal_(self.weight, std=dimension**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Return the largest cosine of each identity, [batch, classes]."""
        cosines = functional.linear(functional.normalize(features), functional.normalize(self.weight))
        return cosines if self.centers == 1 else cosines.unflatten(1, (-1, self.centers)).amax(2)


def build_classifier(model: Model, dimension: int, classes: int) -> nn.Module:
    """Build the untrained classifier of a spec: linear, or cosines for the identity losses with a margin.

    Args:
        model: Section `model` of the spec.
        dimension: Dimension of the features.
        classes: Number of training identities.
    """
    if model.id_loss_type != "softmax":
        return CosineClassifier(dimension, classes, model.sub_centers)
    linear = nn.Linear(dimension, classes, bias=model.neck != "bnneck")
    nn.init.normal_(linear.weight, std=0.001)
    return linear
