"""References in the values of a spec: `${key}`, `${.sibling}`, `${oc.env:NAME}` and `${oc.env:NAME,default}`."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from reid_tune.config.yaml_reader import parse_value
from reid_tune.environment import is_secret_name
from reid_tune.errors import InputError

__all__ = ["Interpolation", "ReferenceFault", "allow_variables", "is_missing"]

_MAX_LENGTH = 100_000  # characters that the references of a spec stand for
_MAX_DEPTH = 20
_CLOSING = re.compile(r"\$\{|\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")

_ALLOWED: ContextVar[frozenset[str]] = ContextVar("environment variables that specs may read", default=frozenset())


class ReferenceFault(Exception):
    """A reference that cannot be resolved; the text says why, without any value of the environment."""


@contextmanager
def allow_variables(names: Collection[str]) -> Iterator[None]:
    """Let specs that are read within the context refer to environment variables whose names look like secrets."""
    token = _ALLOWED.set(frozenset(names))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def is_missing(value: Any) -> bool:
    """Whether a value of a spec means that none is given: null, empty, or the `???` of the reference's templates."""
    return value is None or value == "???" or isinstance(value, str) and not value.strip()


class Interpolation:
    """Values of a spec by dotted key, with their references resolved.

    Args:
        values: Values by dotted key.
        canonical: Function that returns the key of `values` for a key as a user writes it.
        describe: Function that names a key that is not given, with its line.
    """

    def __init__(
        self, values: Mapping[str, Any], canonical: Callable[[str], str], describe: Callable[[str], str]
    ) -> None:
        self._values, self._canonical, self._describe = values, canonical, describe
        self._resolved: dict[str, Any] = {}
        self._open_keys: list[str] = []
        self._length = 0
        self._missing: dict[str, str] = {}

    def origin(self, key: str) -> str:
        """Return the key that is not given, for a key whose value is a reference to it; otherwise the key itself."""
        return self.origin(self._missing[key]) if key in self._missing else key

    def value(self, key: str) -> Any:
        """Return the value of a key with its references resolved.

        Raises:
            ReferenceFault: A reference cannot be resolved.
        """
        if key not in self._resolved:
            if key in self._open_keys:
                raise ReferenceFault(f"it refers to itself, through {' and '.join(self._open_keys)}")
            if len(self._open_keys) > _MAX_DEPTH:
                raise ReferenceFault(f"its references are nested more than {_MAX_DEPTH} deep")
            self._open_keys.append(key)
            try:
                self._resolved[key] = self._resolve(self._values[key], key)
            finally:
                self._open_keys.pop()
        return self._resolved[key]

    def _resolve(self, value: Any, key: str) -> Any:
        if isinstance(value, str) and "${" in value:
            return self._expand(value, key, 0)
        if isinstance(value, list | tuple):
            return [self._resolve_item(item, key) for item in value]
        if isinstance(value, Mapping):
            return {name: self._resolve_item(item, key) for name, item in value.items()}
        return value

    def _resolve_item(self, item: Any, key: str) -> Any:
        value = self._resolve(item, key)
        if value is not item and isinstance(item, str):
            if isinstance(value, list | tuple | Mapping):  # a chain of such lists would multiply its values
                raise ReferenceFault(f"{item[:80]} is a list or a section, which cannot be a part of a list")
            self._count(str(value))
        return value

    def _count(self, text: str) -> None:
        self._length += len(text)
        if self._length > _MAX_LENGTH:
            raise ReferenceFault(f"the references of the spec expand to more than {_MAX_LENGTH:,} characters")

    def _expand(self, text: str, key: str, depth: int) -> Any:
        """Return a text with its references replaced; of a single reference, the value as it is."""
        if depth > _MAX_DEPTH:
            raise ReferenceFault(f"its references are nested more than {_MAX_DEPTH} deep")
        pieces: list[str] = []
        position = 0
        while (start := text.find("${", position)) >= 0:
            if text[start - 1 : start] == "\\":
                pieces.append(text[position : start - 1] + "${")
                position = start + 2
                continue
            end = _find_end(text, start)
            reference = str(self._expand(text[start + 2 : end], key, depth + 1)).strip()
            value = self._reference(reference, key)
            if start == 0 and end == len(text) - 1:
                if value is None and ":" not in reference:
                    self._missing[key] = self._absolute(reference, key)
                return value
            if value is None:
                name = "a variable" if ":" in reference else self._describe(self.origin(self._absolute(reference, key)))
                raise ReferenceFault(f"{name} is not given, and {key} refers to it")
            if isinstance(value, list | tuple | Mapping):
                raise ReferenceFault(f"{text[start : end + 1]} is a list or a section, which cannot be part of a text")
            pieces += text[position:start], str(value)
            position = end + 1
            self._count(pieces[-1])
        return "".join(pieces) + text[position:]

    def _reference(self, reference: str, key: str) -> Any:
        resolver, colon, argument = reference.partition(":")
        if not colon:
            return self._other_key(reference, key)
        if resolver.strip() == "oc.env":
            return _environment_value(argument)
        if resolver.strip() == "oc.decode":
            try:
                return parse_value(argument, "the value")
            except InputError:
                raise ReferenceFault("the argument of oc.decode is not YAML") from None
        raise ReferenceFault(f"${{{resolver[:40]}:...}} is not supported: use ${{key}} or ${{oc.env:NAME}}")

    def _absolute(self, reference: str, key: str) -> str:
        """Return the dotted key that a reference in the value of `key` means; leading dots begin at its section."""
        dots = len(reference) - len(reference.lstrip("."))
        name = ".".join([*key.split(".")[:-dots], reference.lstrip(".")]) if dots else reference
        return self._canonical(name)

    def _other_key(self, reference: str, key: str) -> Any:
        name = self._absolute(reference, key)
        if name == "encryption_key":
            raise ReferenceFault("encryption_key is a secret, to which no other field can refer")
        if name not in self._values:
            raise ReferenceFault(f"the key {reference[:80]!r} was not found")
        value = self.value(name)
        if not is_missing(value):
            return value
        task, _, field = name.rpartition(".")
        return f"{self.value('results_dir')}/{task}" if task and field == "results_dir" else None


def _find_end(text: str, start: int) -> int:
    depth = 0
    for match in _CLOSING.finditer(text, start):
        depth += 1 if match[0] == "${" else -1
        if not depth:
            return match.start()
    raise ReferenceFault("the } of a ${ is missing")


def _environment_value(argument: str) -> str | None:
    name, comma, default = argument.partition(",")
    name = name.strip().strip("'\"")
    if not _NAME.fullmatch(name):
        raise ReferenceFault("${oc.env:...} needs the name of an environment variable")
    if is_secret_name(name) and name not in _ALLOWED.get():
        raise ReferenceFault(
            f"the environment variable {name} may hold a secret: add --allow-env {name} if the spec is to read it"
        )
    value = os.environ.get(name)
    if value is not None:
        return value
    if not comma:
        raise ReferenceFault(f"the environment variable {name} is not set")
    default = default.strip().strip("'\"")
    return None if default == "null" else default
