"""How the losses add up."""

from torch import Tensor
from torch.nn import functional

from reid_tune.losses.triplet import batch_hard_triplet
from reid_tune.spec.experiment import Experiment

__all__ = ["LABEL_SMOOTHING", "Losses"]

LABEL_SMOOTHING = 0.1


class Losses:
    """The losses that a spec asks for, on one global batch; their sum has weights of 1."""

    def __init__(self, experiment: Experiment) -> None:
        self.identity = "softmax" in experiment.dataset.sampler
        self.triplet = "triplet" in experiment.dataset.sampler
        self.smoothing = LABEL_SMOOTHING if experiment.model.label_smooth else 0.0
        self.margin = None if experiment.model.no_margin else experiment.train.optim.triplet_loss_margin

    def __call__(self, features: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Parts by name, each a float32 scalar.

        Args:
            features: [batch, dimension] before the neck.
            logits: [batch, identities] behind it.
            labels: [batch] int64.
        """
        parts = {}
        if self.identity:
            parts["identity"] = functional.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing)
        if self.triplet:
            parts["triplet"] = batch_hard_triplet(features, labels, self.margin)
        return parts
