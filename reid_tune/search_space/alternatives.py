"""One error for a value that may have several forms."""

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError, WrapValidator

__all__ = ["expecting"]


def expecting(forms: str) -> WrapValidator:
    """Return a validator that has one error for a union, whose members would have one each.

    Args:
        forms: Values that are allowed, after "should be".
    """

    def check(value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(f"should be {forms}") from None

    return WrapValidator(check)
