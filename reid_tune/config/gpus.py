"""Which GPUs a task uses."""

from typing import Annotated

from pydantic import AfterValidator, Field

from reid_tune.config.base import Section

__all__ = ["GpuSelection"]

GpuId = Annotated[int, Field(ge=0)]


def _once(ids: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(ids)) < len(ids):
        raise ValueError("should name each GPU once")
    return ids


class GpuSelection(Section):
    num_gpus: int = Field(1, ge=1, description="Workers, one on each GPU; without a GPU, processes on the CPU.")
    gpu_ids: Annotated[tuple[GpuId, ...], AfterValidator(_once)] = Field(
        (0,), min_length=1, description="Indices of the GPUs."
    )

    @property
    def gpus(self) -> tuple[int, ...]:
        """The indices after the documented rule: where the two fields disagree, the one with more GPUs counts.

        (1, [0, 1]) is [0, 1], (2, [0]) is [0, 1], (3, [4, 5]) is [0, 1, 2].
        """
        count = max(self.num_gpus, len(self.gpu_ids))
        return self.gpu_ids if len(self.gpu_ids) == count else tuple(range(count))
