"""The common base of all sections of a spec."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

__all__ = ["Section", "AutoBool"]


def _switch(value: Any) -> Any:
    if not isinstance(value, bool) and value != "auto":
        raise ValueError("should be true, false or auto")
    return value


# A union alone would be two faults, one for each of its members.
AutoBool = Annotated[bool | Literal["auto"], BeforeValidator(_switch)]


class Section(BaseModel):
    """A section of a spec: unknown keys are errors, values cannot be changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
