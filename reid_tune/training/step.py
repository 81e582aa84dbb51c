"""One optimization step on the global batch."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reid_tune.losses.total import Losses
from reid_tune.modeling.network import ReIDNet
from reid_tune.spec.experiment import Experiment
from reid_tune.training.workers import gather_rows, world_size

__all__ = ["Step", "autocast"]


_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The arithmetic of the backbone: float32, or one of 16 bits where torch deems it safe."""
    return torch.autocast(device.type, dtype=_HALVES.get(precision), enabled=precision in _HALVES)


class _Global(nn.Module):
    """Features of the global batch and their logits; the backbone sees this worker's images alone."""

    def __init__(self, network: ReIDNet, precision: str, classify: bool, compiled: bool) -> None:
        super().__init__()
        self.network = network
        self.precision = precision
        self.features: Callable[[Tensor], Tensor] = network.features
        if compiled:
            self.features = torch.compile(network.features, dynamic=False)
        if not classify:
            # DistributedDataParallel waits for a gradient of every parameter that wants one.
            for part in (network.neck, network.classifier):
                assert part is not None
                part.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(self.precision, images.device):
            local = self.features(images)
        features = gather_rows(local.float())
        return features, self.network.logits(features)


class Step:
    """Forward, losses, backward, update; the same result for any number of workers with the same global batch.

    That holds to rounding where the backbone's batch norm is in eval mode and no layer is stochastic: batch norm in
    training mode sees the images of one worker. The centres of center loss are alike on all workers: each steps its own
    from the same features.
    """

    def __init__(self, network: ReIDNet, optimizer: torch.optim.Optimizer, experiment: Experiment) -> None:
        assert network.classifier is not None
        device = network.classifier.weight.device
        self.losses = Losses(experiment, network.classifier.out_features, network.dimension)
        self.center = self.losses.center.to(device) if self.losses.center is not None else None
        self.optimizer = optimizer
        self.clip = experiment.train.clip_grad_norm
        self.network = network
        precision = experiment.train.precision
        # Half precision underflows: the loss is scaled up, the gradients down again, steps with infinities are skipped.
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        module = _Global(network, precision, self.losses.identity, experiment.train.compile)
        self.module: nn.Module = DistributedDataParallel(module) if world_size() > 1 else module

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Update the network once.

        Args:
            images: This worker's slice [batch / workers, 3, H, W], normalised.
            labels: The global batch's [batch] int64.

        Returns:
            The loss, its parts and, with an identity loss, the accuracy of the batch; detached scalars.
        """
        features, logits = self.module(images)
        parts = self.losses(features, logits, labels)
        loss = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        scale = self.scaler.get_scale() if self.center is not None else 1.0
        self.scaler.scale(loss).backward()
        if self.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.center is not None:
            self.center.step(scale)
        values = {"loss": loss.detach(), **{f"loss/{name}": part.detach() for name, part in parts.items()}}
        if self.losses.identity:
            values["accuracy"] = (logits.argmax(1) == labels).float().mean()
        return values
