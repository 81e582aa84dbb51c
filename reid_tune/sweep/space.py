"""The language of a search space: what may be searched, and the ranges."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from reid_tune.spec.experiment import canonical
from reid_tune.spec.load import LEAVES, nearest_key, problems

if TYPE_CHECKING:
    import optuna

__all__ = ["Choice", "Parameter", "Range", "Space", "parse_space"]

_SEARCHABLE = ("model.", "dataset.", "train.")
# Set by the sweep itself, or without influence on what a trial learns.
_FIXED = {
    "model.pretrained_model_path",
    "dataset.train_dataset_dir",
    "dataset.test_dataset_dir",
    "dataset.query_dataset_dir",
    "dataset.num_classes",
    "dataset.num_workers",
    "dataset.val_batch_size",
    "dataset.validation",
    "dataset.validation_fraction",
    "dataset.validation_seed",
    "train.num_gpus",
    "train.gpu_ids",
    "train.seed",
    "train.checkpoint_interval",
    "train.validation_interval",
    "train.resume_training_checkpoint_path",
    "train.results_dir",
}
_LATER = ("logint", "quniform", "when")


class Parameter(Protocol):
    """One searched key."""

    @property
    def key(self) -> str:
        """The dotted key of the spec."""

    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """The range in Optuna's terms."""

    def decode(self, value: Any) -> Any:
        """Optuna's value as the spec's."""

    def encode(self, value: Any) -> Any | None:
        """The spec's value as Optuna's; None where it lies outside the range."""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included."""

    key: str
    kind: Literal["uniform", "loguniform", "int"]
    low: float
    high: float

    def distribution(self) -> "optuna.distributions.BaseDistribution":
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high))
        return FloatDistribution(self.low, self.high, log=self.kind == "loguniform")

    def decode(self, value: Any) -> Any:
        return value

    def encode(self, value: Any) -> Any | None:
        inside = isinstance(value, (int, float)) and self.low <= value <= self.high
        return value if inside and (self.kind != "int" or value == int(value)) else None


@dataclass(frozen=True)
class Choice:
    """One of several values, which may be lists."""

    key: str
    values: tuple[Any, ...]

    def distribution(self) -> "optuna.distributions.BaseDistribution":
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([json.dumps(value) for value in self.values])

    def decode(self, value: Any) -> Any:
        return json.loads(value)

    def encode(self, value: Any) -> Any | None:
        value = list(value) if isinstance(value, tuple) else value
        # The spec's 1.0 is the choice's 1.
        return json.dumps(self.values[self.values.index(value)]) if value in self.values else None


@dataclass(frozen=True)
class Space:
    """All searched keys in the file's order."""

    parameters: tuple[Parameter, ...]

    def distributions(self) -> "dict[str, optuna.distributions.BaseDistribution]":
        """Optuna's distribution of each key."""
        return {parameter.key: parameter.distribution() for parameter in self.parameters}

    def decode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's values as the spec's, by key."""
        return {parameter.key: parameter.decode(values[parameter.key]) for parameter in self.parameters}

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The spec's values as Optuna's; None where any lies outside its range."""
        encoded = {parameter.key: parameter.encode(values[parameter.key]) for parameter in self.parameters}
        return None if None in encoded.values() else encoded


def parse_space(tree: Mapping[str, Any], source: str) -> Space:
    """Read the section `space`: each key of the spec with one of choice, uniform, loguniform and int.

    Raises:
        InputError: all unknown or fixed keys and all ranges that are empty or malformed.
    """
    parameters: dict[str, Parameter] = {}
    wrong = []
    for key, entry in tree.items():
        name = canonical(str(key))
        try:
            if name in parameters:
                raise ValueError("this key is given twice (an alias is a second spelling): keep one.")
            parameters[name] = _parse(name, entry)
        except ValueError as error:
            wrong.append(f"space.{key}: {error}")
    if not tree:
        wrong.append("space is empty: name at least one key with its range.")
    if wrong:
        raise problems(source, wrong)
    return Space(tuple(parameters.values()))


def _parse(key: str, entry: Any) -> Parameter:
    if key.startswith("re_ranking."):
        raise ValueError("a search over re-ranking is not supported in this version.")
    if key not in LEAVES:
        near = nearest_key(key)
        raise ValueError(f"the spec has no such key{f'; did you mean {near}?' if near else '.'}")
    if key in _FIXED or not key.startswith(_SEARCHABLE):
        raise ValueError("this key cannot be searched: the sweep sets it, or it does not change what a trial learns.")
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(f"{entry!r} is not a range: write for example {{uniform: [0.1, 0.6]}} or {{choice: [a, b]}}.")
    kind, values = next(iter(entry.items()))
    if kind in _LATER:
        raise ValueError(f"{kind} is not supported in this version.")
    if kind == "choice":
        return _choice(key, values)
    if kind in ("uniform", "loguniform", "int"):
        return _range(key, kind, values)
    raise ValueError(f"unknown kind of range {kind!r}; there are choice, uniform, loguniform and int.")


def _choice(key: str, values: Any) -> Choice:
    if not isinstance(values, list) or not values:
        raise ValueError(f"choice = {values!r}: give a list of at least one value.")
    if any(values.count(value) > 1 for value in values):
        raise ValueError(f"choice = {values!r} names a value twice.")
    return Choice(key, tuple(values))


def _range(key: str, kind: Any, values: Any) -> Range:
    if not isinstance(values, list) or len(values) != 2:
        raise ValueError(f"{kind} = {values!r}: give [low, high].")
    low, high = (_number(value) for value in values)
    if low is None or high is None or (kind == "int" and not (low.is_integer() and high.is_integer())):
        raise ValueError(f"{kind} = {values!r}: low and high must be {'whole ' if kind == 'int' else ''}numbers.")
    if low >= high:
        raise ValueError(f"{kind} = {values!r}: low must be below high.")
    if kind == "loguniform" and low <= 0:
        raise ValueError(f"loguniform = {values!r}: low must be above 0.")
    return Range(key, kind, low, high)


def _number(value: Any) -> float | None:
    # YAML 1.1 reads 1e-4 as text.
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None
