"""The person re-identification network."""

import torch
from torch import Tensor, nn

from reid_tune.config.model import Model
from reid_tune.modeling.backbone import build_backbone

__all__ = ["ReIDNet", "build_network", "build_seeded_network"]


class ReIDNet(nn.Module):
    """Backbone, pooling, optional projection, BNNeck and, for training, a classifier (Luo et al., CVPRW 2019).

    The metric loss acts on the feature before the neck, the identity loss on the classifier's output behind it.

    Args:
        backbone: Images [batch, C, H, W] to what `pooling` takes.
        pooling: To features [batch, own dimension]; identity where the backbone pools.
        projection: To the embedding's dimension; identity for none.
        dimension: Dimension of the embedding.
        neck: Whether to use the BNNeck; without it the classifier has a bias and acts on the feature itself.
        after_neck: Whether the embedding is taken behind the neck.
        flip: Whether the embedding is the sum over the image and its mirror image.
        dropout: Rate of the dropout before the classifier.
        classes: Training identities; 0 for a network without classifier.
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
        self.classifier = nn.Linear(dimension, classes, bias=not neck) if classes else None
        if self.classifier is not None:
            nn.init.normal_(self.classifier.weight, std=0.001)
        self.dimension = dimension
        self.after_neck = after_neck
        self.flip = flip

    def features(self, images: Tensor) -> Tensor:
        """Features before the neck, [batch, dimension]."""
        return self.projection(self.pooling(self.backbone(images)))

    def logits(self, features: Tensor) -> Tensor:
        """Logits [batch, classes] of features before the neck; the network must have a classifier."""
        assert self.classifier is not None
        return self.classifier(self.dropout(self.neck(features)))

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [batch, dimension], not L2-normalised."""
        embedding = self._embed(images)
        return embedding + self._embed(images.flip(3)) if self.flip else embedding

    def _embed(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return self.neck(features) if self.after_neck else features


def build_network(model: Model, classes: int = 0) -> ReIDNet:
    """Build an untrained network; without `classes` it has no classifier.

    Raises:
        InputError: the backbone's name is wrong, or it cannot take the size or another value of the spec.
    """
    backbone, pooling, own = build_backbone(model)
    project = model.feat_dim != own if model.reduce_feat_dim is None else model.reduce_feat_dim
    dimension = model.feat_dim if project else own
    # The reference projects a ResNet's map by a 1x1 convolution before the average: the same, as both are linear.
    projection = nn.Linear(own, dimension, bias="resnet" in model.backbone) if project else nn.Identity()
    if isinstance(projection, nn.Linear):
        nn.init.kaiming_normal_(projection.weight, mode="fan_out")
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)
    return ReIDNet(
        backbone,
        pooling,
        projection,
        dimension,
        neck=model.neck == "bnneck",
        after_neck=model.neck_feat == "after",
        flip=model.with_flip_feature,
        dropout=model.dropout_rate,
        classes=classes,
    )


def build_seeded_network(model: Model, classes: int, seed: int) -> ReIDNet:
    """`build_network` with weights drawn from a seed, leaving torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(model, classes)
