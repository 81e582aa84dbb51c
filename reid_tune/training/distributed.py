"""What the workers of one run share: the global batch, and one set of gradients."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["average_gradients", "broadcast_object", "gather_objects", "gather_rows", "rank", "world_size"]


def world_size() -> int:
    """Number of workers; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This worker's index."""
    return dist.get_rank() if dist.is_initialized() else 0


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all workers in rank order, [workers * batch, dimension], with a gradient for the own rows.

    Every worker computes the loss of the whole global batch, so a parameter before this point receives on each worker
    the part of the gradient that flows through its own rows. The parts add up to the whole; as
    DistributedDataParallel takes their mean, the gradient of the own rows is scaled by the number of workers.
    """
    workers = world_size()
    if workers == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(workers)]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[rank()] = _ScaleGradient.apply(rows, workers)
    return torch.cat(parts)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the workers, in one exchange, as DistributedDataParallel does."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))


def gather_objects(value: Any) -> list[Any]:
    """The values of all workers in rank order."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """Rank 0's value on every worker."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]
