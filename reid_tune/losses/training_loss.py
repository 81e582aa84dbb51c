"""The loss of a training: identity, triplet and center loss of one batch."""

from torch import Tensor
from torch.nn import functional

from reid_tune.config.experiment import Experiment
from reid_tune.config.unused_fields import has_identity_loss, has_triplet_loss
from reid_tune.losses.metric_losses import CenterLoss, batch_hard_triplet

__all__ = ["LABEL_SMOOTHING", "TrainingLoss"]

LABEL_SMOOTHING = 0.1


class TrainingLoss:
    """The losses that a spec asks for, on one global batch; identity and triplet loss have a weight of 1.

    Args:
        experiment: The spec.
        classes: Number of training identities.
        dimension: Dimension of the features.
    """

    def __init__(self, experiment: Experiment, classes: int, dimension: int) -> None:
        optim = experiment.train.optim
        self.identity = has_identity_loss(experiment)
        self.triplet = has_triplet_loss(experiment)
        self.smoothing = LABEL_SMOOTHING if experiment.model.label_smooth else 0.0
        self.margin = None if experiment.model.no_margin else optim.triplet_loss_margin
        self.center: CenterLoss | None = None
        if experiment.model.with_center_loss:
            seed = max(experiment.train.seed, 0)
            self.center = CenterLoss(classes, dimension, optim.center_loss_weight, optim.center_lr, seed)

    def __call__(self, features: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss's parts by name, each a float32 scalar.

        Args:
            features: Features [batch, dimension] before the neck.
            logits: Output of the classifier [batch, identities].
            labels: Classes [batch], int64.
        """
        parts = {}
        if self.identity:
            parts["identity"] = functional.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing)
        if self.triplet:
            parts["triplet"] = batch_hard_triplet(features, labels, self.margin)
        if self.center is not None:
            parts["center"] = self.center(features, labels)
        return parts
