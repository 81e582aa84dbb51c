"""Ranges of a search space: the values from which one key is drawn."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    Distribution: TypeAlias = BaseDistribution
    Distributions = dict[str, Distribution]

__all__ = ["RANGE_KINDS", "INTEGER_KINDS", "LOGARITHMIC_KINDS", "Choice", "ListRange", "NumberRange", "Range"]

RANGE_KINDS = ("choice", "value", "uniform", "loguniform", "quniform", "int", "logint", "list")
INTEGER_KINDS, LOGARITHMIC_KINDS = frozenset({"int", "logint"}), frozenset({"loguniform", "logint"})


class Range(Protocol):
    """Values of one key. Optuna has no, one or several parameters for it, whose names begin with `name`."""

    def distributions(self, name: str) -> "Distributions":
        """Return Optuna's distributions by name, none for a range of one value."""

    def decode(self, name: str, drawn: Mapping[str, Any]) -> Any:
        """Return the spec's value for Optuna's values."""

    def encode(self, name: str, value: Any) -> dict[str, Any] | None:
        """Return Optuna's values for the spec's value, None if it is outside of the range."""

    def values(self) -> Iterable[Any] | None:
        """Return all values in order, None for a continuous range."""

    def spaced_values(self, count: int) -> list[Any]:
        """Return at most `count` (2 or more) evenly spaced values, including both ends; all options of a choice."""

    def as_entry(self) -> dict[str, Any]:
        """Return the range as a search-space file writes it."""


@dataclass(frozen=True)
class NumberRange:
    """Numbers from low to high, both included: `quniform` in steps, `int` and `logint` whole numbers."""

    kind: str
    low: float
    high: float
    step: float | None = None

    def distributions(self, name: str) -> "Distributions":
        from optuna.distributions import FloatDistribution, IntDistribution

        logarithmic = self.kind in LOGARITHMIC_KINDS
        if self.step is not None:
            return {name: IntDistribution(0, self._index(self.high))}
        if self.kind in INTEGER_KINDS:
            return {name: IntDistribution(int(self.low), int(self.high), log=logarithmic)}
        return {name: FloatDistribution(self.low, self.high, log=logarithmic)}

    def decode(self, name: str, drawn: Mapping[str, Any]) -> Any:
        return drawn[name] if self.step is None else self._at(drawn[name])

    def encode(self, name: str, value: Any) -> dict[str, Any] | None:
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        if self.step is not None:
            index = self._index(value)
            return {name: index} if self._at(index) == value else None
        if self.kind in INTEGER_KINDS:
            return {name: int(value)} if value == int(value) else None
        return {name: value}

    def values(self) -> Iterable[Any] | None:
        if self.step is not None:
            return map(self._at, range(self._index(self.high) + 1))
        return range(int(self.low), int(self.high) + 1) if self.kind in INTEGER_KINDS else None

    def spaced_values(self, count: int) -> list[Any]:
        if self.step is not None:
            steps = self._index(self.high)
            return [self._at(index) for index in sorted({round(steps * fraction) for fraction in _fractions(count)})]
        logarithmic = self.kind in LOGARITHMIC_KINDS
        span = self.high / self.low if logarithmic else self.high - self.low
        values = [
            self.low * span**fraction if logarithmic else self.low + span * fraction for fraction in _fractions(count)
        ]
        # 0.6, not 0.6000000000000001
        values = [self.low, *(float(f"{value:.12g}") for value in values[1:-1]), self.high]
        return sorted({round(value) for value in values}) if self.kind in INTEGER_KINDS else values

    def as_entry(self) -> dict[str, Any]:
        return {self.kind: [self.low, self.high] + ([] if self.step is None else [self.step])}

    def _index(self, value: float) -> int:
        return round((value - self.low) / (self.step or 1))

    def _at(self, index: int) -> float:
        # Decimal, so that two steps of 0.1 above 0.1 are the 0.3 of a spec.
        value = Decimal(str(self.low)) + index * Decimal(str(self.step))
        return int(value) if isinstance(self.low, int) and isinstance(self.step, int) else float(value)


@dataclass(frozen=True)
class Choice:
    """One of several values, which may be lists. A single value is set, not searched."""

    options: tuple[Any, ...]

    def distributions(self, name: str) -> "Distributions":
        from optuna.distributions import CategoricalDistribution

        return {name: CategoricalDistribution(list(map(json.dumps, self.options)))} if len(self.options) > 1 else {}

    def decode(self, name: str, drawn: Mapping[str, Any]) -> Any:
        if len(self.options) == 1:
            return self.options[0]
        text = drawn[name]
        return json.loads(text) if text[0] in "[{" else _load_scalar(text)  # A list is new each time.

    def encode(self, name: str, value: Any) -> dict[str, Any] | None:
        if value not in self.options:
            return None
        # The spec's 1.0 is the choice's 1.
        return {name: json.dumps(self.options[self.options.index(value)])} if len(self.options) > 1 else {}

    def values(self) -> Iterable[Any] | None:
        return self.options

    def spaced_values(self, count: int) -> list[Any]:
        return list(self.options)

    def as_entry(self) -> dict[str, Any]:
        return {"choice": list(self.options)} if len(self.options) > 1 else {"value": self.options[0]}


@dataclass(frozen=True)
class ListRange:
    """Lists of a fixed length with a separate range for each element."""

    elements: tuple[Range, ...]

    def distributions(self, name: str) -> "Distributions":
        return {key: dist for part, inner in self._named(name) for key, dist in inner.distributions(part).items()}

    def decode(self, name: str, drawn: Mapping[str, Any]) -> Any:
        return [inner.decode(part, drawn) for part, inner in self._named(name)]

    def encode(self, name: str, value: Any) -> dict[str, Any] | None:
        if not isinstance(value, list) or len(value) != len(self.elements):
            return None
        encoded: dict[str, Any] = {}
        for (part, inner), element in zip(self._named(name), value, strict=True):
            encoded_element = inner.encode(part, element)
            if encoded_element is None:
                return None
            encoded |= encoded_element
        return encoded

    def values(self) -> Iterable[Any] | None:
        return None if any(inner.values() is None for inner in self.elements) else _product(self.elements)

    def spaced_values(self, count: int) -> list[Any]:
        return list(map(list, itertools.product(*(inner.spaced_values(count) for inner in self.elements))))

    def as_entry(self) -> dict[str, Any]:
        return {"list": [inner.as_entry() for inner in self.elements]}

    def _named(self, name: str) -> list[tuple[str, Range]]:
        return [(f"{name}[{index}]", inner) for index, inner in enumerate(self.elements)]


def _product(elements: tuple[Range, ...]) -> Iterator[list[Any]]:
    # itertools.product would hold all values of a range of millions in memory.
    if not elements:
        yield []
        return
    for first in elements[0].values() or ():
        for others in _product(elements[1:]):
            yield [first, *others]


@lru_cache(maxsize=1000)
def _load_scalar(text: str) -> Any:
    return json.loads(text)


def _fractions(count: int) -> list[float]:
    return [index / (count - 1) for index in range(count)]
