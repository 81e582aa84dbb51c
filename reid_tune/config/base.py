"""Base class of all sections of a spec, and fields that several sections share."""

import re
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

__all__ = ["AutoBool", "GpuSelection", "Section"]


def _check_auto_bool(value: Any) -> Any:
    if not isinstance(value, bool) and value != "auto":
        raise ValueError("should be true, false or auto")
    return value


# A plain union would report two errors, one for each of its members.
AutoBool = Annotated[bool | Literal["auto"], BeforeValidator(_check_auto_bool)]


# Python and YAML 1.1 read 010 and 1_00 as different numbers, so nobody can know which one is meant.
_AMBIGUOUS_NUMBER = re.compile(r"\s*[-+]?(0[0-9_]+|[0-9.][0-9.eE+-]*_[0-9_.eE+-]*)\s*")


class Section(BaseModel):
    """A section of a spec: unknown keys are errors, values cannot be changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _check_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, float) or not _is_number(cls, str(info.field_name)):
            return value
        items = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(item, bool) for item in items):  # which pydantic reads as 1 or 0
            raise ValueError("should be a number")
        if any(isinstance(item, str) and _AMBIGUOUS_NUMBER.fullmatch(item) for item in items):
            raise ValueError("should be a number without leading zeros or underscores")
        return value


@cache
def _is_number(section: type[Section], name: str) -> bool:
    """Whether a field has a number, or a list of numbers."""
    kinds, pending = set(), [section.model_fields[name].annotation]
    while pending:
        kind = pending.pop()
        kinds.add(kind)
        if getattr(kind, "__origin__", None) is not Literal:
            pending += get_args(kind)
    return bool(kinds & {int, float}) and kinds.isdisjoint({str, bool})


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
