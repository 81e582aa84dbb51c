"""The loss of a training: identity, metric and center loss of one batch."""

from torch import Tensor
from torch.nn import functional

from reid_tune.config.experiment import Experiment
from reid_tune.config.unused_fields import has_identity_loss, has_pair_loss, has_triplet_loss
from reid_tune.losses.margin_softmax import MarginSoftmax
from reid_tune.losses.metric_losses import (
    CenterLoss,
    batch_hard_triplet,
    cosine_distances,
    euclidean_distances,
    weighted_triplet,
)
from reid_tune.losses.pair_losses import PairLoss

__all__ = ["TrainingLoss", "part_labels"]


class TrainingLoss:
    """The losses that a spec asks for, with their weights, on one global batch.

    Args:
        experiment: The spec.
        classes: Number of training identities.
        dimension: Dimension of the features.
    """

    def __init__(self, experiment: Experiment, classes: int, dimension: int) -> None:
        train, optim = experiment.train, experiment.train.optim
        self.identity = has_identity_loss(experiment)
        self.triplet = has_triplet_loss(experiment)
        self.smoothing = experiment.model.label_smoothing if experiment.model.label_smooth else 0.0
        self.identity_weight, self.triplet_weight = train.identity_weight, train.triplet_weight
        self.distances = cosine_distances if train.triplet_distance == "cosine" else euclidean_distances
        self.is_weighted = train.triplet_mining == "weighted"
        self.margin = None if experiment.model.no_margin else optim.triplet_loss_margin
        self.margin_softmax: MarginSoftmax | None = None
        if experiment.model.id_loss_type != "softmax":
            self.margin_softmax = MarginSoftmax(experiment.model.id_loss_type, optim.cosine_margin, optim.cosine_scale)
        self.pair: PairLoss | None = None
        if has_pair_loss(experiment):
            self.pair = PairLoss(experiment.model.metric_loss_type, optim.pair_margin, optim.pair_scale)
        self.center: CenterLoss | None = None
        if experiment.model.with_center_loss:
            seed = max(experiment.train.seed, 0)
            self.center = CenterLoss(classes, dimension, optim.center_loss_weight, optim.center_lr, seed)

    def __call__(self, features: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss's weighted parts by name, each a float32 scalar.

        Args:
            features: Features [batch, dimension] before the neck.
            logits: Output of the classifier [batch * parts, identities], the parts of an image one after the other;
                cosines for an identity loss with a margin.
            labels: Classes [batch], int64.
        """
        parts = {}
        if self.identity:
            classes = part_labels(labels, logits)
            logits = self.margin_softmax(logits, classes) if self.margin_softmax else logits.float()
            loss = functional.cross_entropy(logits, classes, label_smoothing=self.smoothing)
            parts["identity"] = self.identity_weight * loss
        if self.triplet:
            parts["triplet"] = self.triplet_weight * self._triplet(features, labels)
        if self.pair is not None:
            parts["pair"] = self.triplet_weight * self.pair(features, labels)
        if self.center is not None:
            parts["center"] = self.center(features, labels)
        return parts

    def _triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        distances = self.distances(features)
        if self.is_weighted:
            return weighted_triplet(distances, labels)
        return batch_hard_triplet(distances, labels, self.margin)


def part_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """Return the class of each row of logits [batch * parts, identities], for classes [batch]."""
    return labels.repeat_interleave(len(logits) // len(labels))
