"""The person re-identification network."""

import torch
from torch import Tensor, nn

from reid_tune.config.model import Model
from reid_tune.modeling.backbone import build_backbone
from reid_tune.modeling.classifier import build_classifier
from reid_tune.modeling.parts import per_part

__all__ = ["ReIDNet", "build_network", "build_seeded_network"]


class ReIDNet(nn.Module):
    """Backbone, pooling, optional projection, BNNeck and, for training, a classifier (Luo et al., CVPRW 2019).

    The metric loss acts on the feature before the neck, the identity loss on the classifier's output after it. A
    feature of several parts holds them one after the other. Each part has a separate projection and classifier, and the
    neck's batch norm treats each value separately anyway.

    Args:
        backbone: Module from images [batch, C, H, W] to the input of `pooling`.
        pooling: Module that gives features [batch, the backbone's dimension]; identity if the backbone pools.
        projection: Module that projects to the embedding's dimension, part by part; identity for no projection.
        dimension: Dimension of the embedding.
        neck: Whether to use the BNNeck; without it the classifier acts on the feature itself.
        after_neck: Whether the embedding is taken after the neck.
        flip: Whether the embedding is the sum over the image and its mirror image.
        dropout: Rate of the dropout before the classifier, 0..1.
        classifier: Module from features after the neck to logits, or to cosines; None for a network without it.
        classes: Number of training identities.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pooling: nn.Module,
        projection: nn.Module,
        dimension: int,
        *,
        neck: bool,
        after_neck: bool,
        flip: bool,
        dropout: float,
        classifier: nn.Module | None,
        classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.projection = projection
        self.neck: nn.Module = nn.Identity()
        if neck:
            self.neck = nn.BatchNorm1d(dimension)
            self.neck.bias.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier
        self.classes = classes
        self.dimension = dimension
        self.after_neck = after_neck
        self.flip = flip

    def features(self, images: Tensor) -> Tensor:
        """Return features before the neck, [batch, dimension]."""
        return self.projection(self.pooling(self.backbone(images)))

    def logits(self, features: Tensor) -> Tensor:
        """Return the classifier's output [batch * parts, classes] for features before the neck.

        The network must have a classifier. Its output are logits, or cosines for an identity loss with a margin.
        """
        assert self.classifier is not None
        return self.classifier(self.dropout(self.neck(features))).view(-1, self.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [batch, dimension], not L2-normalised."""
        embedding = self._embed(images)
        return embedding + self._embed(images.flip(3)) if self.flip else embedding

    def _embed(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return self.neck(features) if self.after_neck else features


def build_network(model: Model, classes: int = 0) -> ReIDNet:
    """Build an untrained network.

    Args:
        model: Section `model` of the spec.
        classes: Number of training identities; 0 for a network without classifier.

    Raises:
        InputError: The backbone's name is wrong, or it does not support the size or another value of the spec.
    """
    backbone, pooling, backbone_dimension = build_backbone(model)
    project = model.feat_dim != backbone_dimension
    # The reference reads reduce_feat_dim of a Swin alone, and writes its default, false, into every spec of a ResNet.
    if model.reduce_feat_dim is not None and model.backbone != "resnet_50":
        project = model.reduce_feat_dim
    dimension = model.feat_dim if project else backbone_dimension
    parts = sum(model.parts)
    # The reference projects a ResNet's map by a 1x1 convolution before the average: the same, as both are linear.
    projection: nn.Module = nn.Identity()
    if project:
        projection = per_part(parts, lambda: _build_projection(model, backbone_dimension, dimension))
    classifier = per_part(parts, lambda: build_classifier(model, dimension, classes)) if classes else None
    return ReIDNet(
        backbone,
        pooling,
        projection,
        parts * dimension,
        neck=model.neck == "bnneck",
        after_neck=model.neck_feat == "after",
        flip=model.with_flip_feature,
        dropout=model.dropout_rate,
        classifier=classifier,
        classes=classes,
    )


def _build_projection(model: Model, backbone_dimension: int, dimension: int) -> nn.Linear:
    linear = nn.Linear(backbone_dimension, dimension, bias="resnet" in model.backbone)
    nn.init.kaiming_normal_(linear.weight, mode="fan_out")
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def build_seeded_network(model: Model, classes: int, seed: int) -> ReIDNet:
    """Build a network with weights drawn from a seed; torch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(model, classes)
