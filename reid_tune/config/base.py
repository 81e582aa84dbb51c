"""Base class of all sections of a spec, and fields that several sections share."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["AutoBool", "GpuSelection", "Section"]


def _check_auto_bool(value: Any) -> Any:
    if not isinstance(value, bool) and value != "auto":
        raise ValueError("should be true, false or auto")
    return value


# A plain union would report two errors, one for each of its members.
AutoBool = Annotated[bool | Literal["auto"], BeforeValidator(_check_auto_bool)]


class Section(BaseModel):
    """A section of a spec: unknown keys are errors, values cannot be changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def _require_distinct(ids: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(ids)) < len(ids):
        raise ValueError("should name each GPU once")
    return ids


GpuId = Annotated[int, Field(ge=0)]


class GpuSelection(Section):
    """Fields that choose the GPUs of a task."""

    num_gpus: int = Field(1, ge=1, description="Number of workers, one per GPU; without a GPU, processes on the CPU.")
    gpu_ids: Annotated[tuple[GpuId, ...], AfterValidator(_require_distinct)] = Field(
        (0,), min_length=1, description="Indices of the GPUs, from 0."
    )

    @property
    def gpus(self) -> tuple[int, ...]:
        """GPU indices by the documented rule: if the two fields disagree, the one with more GPUs counts.

        (1, [0, 1]) is [0, 1], (2, [0]) is [0, 1], (3, [4, 5]) is [0, 1, 2].
        """
        count = max(self.num_gpus, len(self.gpu_ids))
        return self.gpu_ids if len(self.gpu_ids) == count else tuple(range(count))
