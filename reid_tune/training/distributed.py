"""Communication between the workers of a run: the global batch, gradients and objects."""

import json
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

__all__ = ["average_gradients", "broadcast_object", "gather_objects", "gather_rows", "rank", "world_size"]


def world_size() -> int:
    """Return the number of workers; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this worker's index; 0 outside a process group."""
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
    """Return the rows of all workers in rank order, with a gradient for the rows of this worker.

    Every worker computes the loss of the whole global batch. On each worker a parameter before this point therefore
    receives the part of the gradient that flows through the rows of that worker, and the parts add up to the whole
    gradient. DistributedDataParallel takes the mean of the parts, so the gradient of a worker's rows is scaled by the
    number of workers.

    Args:
        rows: Rows of this worker [batch, dimension].

    Returns:
        Rows of all workers [workers * batch, dimension].
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
    """Return the values of all workers in rank order; they must be plain data.

    They are sent as JSON: PyTorch's functions for objects would unpickle whatever arrives, and so run code for anybody
    who connects to a port of the workers.
    """
    if world_size() == 1:
        return [value]
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(content)], device=device))
    lengths = [int(size) for size in sizes]
    parts = [torch.empty(max(lengths), dtype=torch.uint8, device=device) for _ in lengths]
    dist.all_gather(parts, functional.pad(content, (0, max(lengths) - len(content))))
    return [json.loads(part[:length].cpu().numpy().tobytes()) for part, length in zip(parts, lengths, strict=True)]


def broadcast_object(value: Any) -> Any:
    """Return the value of rank 0 on every worker; it must be plain data, see `gather_objects`."""
    return gather_objects(value if rank() == 0 else None)[0]
