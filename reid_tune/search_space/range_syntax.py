"""The syntax of a range in a search-space file: one of RANGE_KINDS with its values."""

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from reid_tune.search_space.ranges import (
    INTEGER_KINDS,
    LOGARITHMIC_KINDS,
    RANGE_KINDS,
    Choice,
    ListRange,
    NumberRange,
    Range,
)

__all__ = ["parse_range"]

_MOST_STEPS = 1_000_000
_EXPECTED = {
    "choice": "a list of at least one value",
    "list": "a list with a range for each element",
    "quniform": "[low, high, step]",
}


def parse_range(entry: Any, typed: Callable[[Any], Any]) -> Range:
    """Parse a mapping with one of RANGE_KINDS.

    Args:
        entry: Mapping of a kind to its values.
        typed: Function that converts a value as the key's field reads it.

    Raises:
        ValueError: the range is malformed; the message is one sentence.
    """
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(f"{entry!r} is not a range: write, for example, {{uniform: [0.1, 0.6]}} or {{value: 0.3}}.")
    kind, values = next(iter(entry.items()))
    if kind not in RANGE_KINDS:
        raise ValueError(
            f"unknown kind of range {kind!r}; there are {', '.join(RANGE_KINDS[:-1])} and {RANGE_KINDS[-1]}."
        )
    if kind == "value":
        return Choice((_option(values, typed),))
    if not isinstance(values, list) or not values:
        raise ValueError(f"{kind} = {values!r}: give {_EXPECTED.get(kind, '[low, high]')}.")
    if kind == "list":
        return ListRange(tuple(parse_range(element, lambda value: value) for element in values))
    if kind == "choice":
        options = [_option(value, typed) for value in values]
        if any(options.count(value) > 1 for value in options):
            raise ValueError(f"choice = {values!r} has a value twice: remove one.")
        return Choice(tuple(options))
    return _numbers(kind, values)


def _option(value: Any, typed: Callable[[Any], Any]) -> Any:
    try:
        return json.loads(json.dumps(typed(value)))
    except TypeError:
        raise ValueError(f"{value!r} is not a number, a string, true, false, null or a list of these.") from None


def _numbers(kind: str, values: list[Any]) -> NumberRange:
    if len(values) != (3 if kind == "quniform" else 2):
        raise ValueError(f"{kind} = {values!r}: give {_EXPECTED.get(kind, '[low, high]')}.")
    numbers = [number for number in map(_number, values) if number is not None]
    if len(numbers) < len(values) or (kind in INTEGER_KINDS and not all(isinstance(number, int) for number in numbers)):
        names = "low, high and step" if kind == "quniform" else "low and high"
        raise ValueError(f"{kind} = {values!r}: {names} must be {'whole ' if kind in INTEGER_KINDS else ''}numbers.")
    low, high, *step = numbers
    if low >= high:
        raise ValueError(f"{kind} = {values!r}: low must be below high.")
    if kind in LOGARITHMIC_KINDS and low <= 0:
        raise ValueError(f"{kind} = {values!r}: low must be above 0.")
    if step and (step[0] <= 0 or (high - low) / step[0] > _MOST_STEPS or _remainder(low, high, step[0])):
        raise ValueError(f"{kind} = {values!r}: from low to high must be a whole number of steps, at most 1,000,000.")
    return NumberRange(kind, low, high, *step)


def _remainder(low: float, high: float, step: float) -> Decimal:
    return (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step))


def _number(value: Any) -> float | None:
    # YAML 1.1 reads 1e-4 as text.
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if isinstance(value, bool) or not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
