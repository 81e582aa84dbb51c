"""One optimization step on the global batch."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reid_tune.config.experiment import Experiment
from reid_tune.evaluation.distances import full_precision
from reid_tune.losses.training_loss import TrainingLoss, part_labels
from reid_tune.modeling.network import ReIDNet
from reid_tune.training.acceleration import make_feature_function
from reid_tune.training.accumulation import GradientAccumulation
from reid_tune.training.distributed import gather_rows, world_size

__all__ = ["TrainingStep", "autocast"]

_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the autocast of the backbone: float32, or 16 bits in the operations that torch considers safe.

    Args:
        precision: `train.precision`; fp32, bf16 or fp16.
        device: Device of the backbone.
    """
    return torch.autocast(device.type, dtype=_AUTOCAST_DTYPES.get(precision), enabled=precision in _AUTOCAST_DTYPES)


class _Backbone(nn.Module):
    """Network up to the neck: images of this worker to features float32 [batch, dimension]."""

    def __init__(self, network: ReIDNet, experiment: Experiment, steps: int) -> None:
        super().__init__()
        self.network = network
        self.precision = experiment.train.precision
        self.features: Callable[[Tensor], Tensor] = make_feature_function(network, experiment, steps)

    def forward(self, images: Tensor) -> Tensor:
        with autocast(self.precision, images.device):
            features = self.features(images)
        return features.float()


class _GlobalBatchModel(nn.Module):
    """Features of the global batch and their logits; the backbone sees only this worker's images."""

    def __init__(self, backbone: _Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = gather_rows(self.backbone(images))
        return features, self.backbone.network.logits(features)


class TrainingStep:
    """Forward pass, losses, backward pass and update.

    Any number of workers with the same global batch gives the same result, up to rounding, if the backbone's batch norm
    is in eval mode and no layer is stochastic: batch norm in training mode sees the images of one worker. The centres
    of center loss are equal on all workers, because each worker updates its copy from the same features. Losses and
    their gradients with respect to features and logits are computed in true float32.

    Args:
        network: Network with a classifier, on its device.
        optimizer: Optimizer of the network's parameters.
        experiment: The spec.
        steps: Number of steps of the whole run, which decides for `train.compile = auto`.
    """

    def __init__(
        self, network: ReIDNet, optimizer: torch.optim.Optimizer, experiment: Experiment, steps: int = 0
    ) -> None:
        assert network.classifier is not None and network.neck is not None
        self.device = next(network.classifier.parameters()).device
        self.losses = TrainingLoss(experiment, network.classes, network.dimension)
        self.center = self.losses.center.to(self.device) if self.losses.center is not None else None
        self.optimizer = optimizer
        self.clip_grad_norm = experiment.train.clip_grad_norm
        self.network = network
        # fp16 underflows: the loss is scaled up and the gradients down; steps with infinite gradients are skipped.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=experiment.train.precision == "fp16")
        if not self.losses.identity:
            # DistributedDataParallel waits for the gradient of every parameter that requires one.
            for part in (network.neck, network.classifier):
                part.requires_grad_(False)
        self.freeze_epochs, self._is_frozen = experiment.train.optim.freeze_epochs, False
        self._frozen_parameters = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
        self._model = _GlobalBatchModel(_Backbone(network, experiment, steps))
        self.accumulation: GradientAccumulation | None = None
        if experiment.train.accumulate > 1:
            self.accumulation = GradientAccumulation(self._model.backbone, network, experiment.train.accumulate)
        self.module = self._distributed()

    def start_epoch(self, epoch: int) -> None:
        """Put the network into training mode; a frozen backbone stays in eval mode and has no gradients.

        Args:
            epoch: 0-based epoch.
        """
        self.network.train()
        is_frozen = epoch < self.freeze_epochs
        if is_frozen:
            self.network.backbone.eval()
        if is_frozen != self._is_frozen:
            self._is_frozen = is_frozen
            for parameter in self._frozen_parameters:
                parameter.requires_grad_(not is_frozen)
            self.module = self._distributed()

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Update the network once.

        Args:
            images: Normalised images of this worker's share of the batch [batch / workers, 3, H, W].
            labels: Labels of the global batch, int64 [batch].

        Returns:
            Detached scalars by name: the loss, its parts and, with an identity loss, the accuracy of the batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        features, logits = self.accumulation.forward(images) if self.accumulation else self.module(images)
        values, gradients = self._losses(features, logits, labels)
        outputs = [
            (output, gradient)
            for output, gradient in zip((features, logits), gradients, strict=True)
            if gradient is not None and output.requires_grad
        ]
        torch.autograd.backward(*zip(*outputs, strict=True))
        if self.accumulation:
            self.accumulation.backward(features)
        self._update()
        if self.losses.identity:
            values["accuracy"] = (logits.detach().argmax(1) == part_labels(labels, logits)).float().mean()
        return values

    def _distributed(self) -> nn.Module:
        """Return the model, with its gradients averaged over several workers for the parameters that now have one."""
        if self.accumulation is not None or world_size() == 1:
            return self._model
        return DistributedDataParallel(self._model)

    def _losses(
        self, features: Tensor, logits: Tensor, labels: Tensor
    ) -> tuple[dict[str, Tensor], tuple[Tensor | None, Tensor | None]]:
        """Return the loss and its parts, and the gradients of the scaled loss with respect to features and logits."""
        features, logits = features.detach().requires_grad_(), logits.detach().requires_grad_()
        with full_precision():
            parts = self.losses(features, logits, labels)
            loss = torch.stack(list(parts.values())).sum()
            self.scaler.scale(loss).backward()
        values = {"loss": loss.detach(), **{f"loss/{name}": part.detach() for name, part in parts.items()}}
        return values, (features.grad, logits.grad)

    def _update(self) -> None:
        """Update the parameters and the centres of center loss."""
        scale = None
        if self.center is not None and self.scaler.is_enabled():
            scale = self.scaler.scale(torch.ones((), device=self.device))  # `get_scale` would wait for the GPU.
        if self.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.center is not None:
            self.center.step(scale)
