"""The form of an event's line: a JSON object with the event's kind, its fields and a checksum."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from time import time
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from reid_tune.journal.checksum import DamageError, add_checksum, read_checked

__all__ = ["EventError", "EventRecord", "parse_line", "to_line"]


class EventError(ValueError):
    """A line of a log is not an event; the message says why, without file and line number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """The fields of all events.

    Attributes:
        kind: Name of the record in a log.
        time: Time of the event in seconds since the epoch.
    """

    kind: ClassVar[str]
    time: float = field(default_factory=time)


Record = TypeVar("Record", bound=EventRecord)


def to_line(event: EventRecord) -> bytes:
    """Return the line of an event: a JSON object with `kind`, all fields and the checksum, without a line break.

    Raises:
        ValueError: A value is not JSON, such as NaN.
    """
    return add_checksum({"kind": event.kind} | {item.name: getattr(event, item.name) for item in fields(event)})


def parse_line(line: bytes, kinds: Mapping[str, type[Record]]) -> Record:
    """Return the event of a line.

    Args:
        line: One line, with or without a line break.
        kinds: Classes of the records by kind.

    Raises:
        EventError: The checksum is not that of the line, the kind or a field is unknown, or a field is missing or has
            another type.
    """
    try:
        content = read_checked(line)
    except DamageError as error:
        raise EventError(str(error)) from None
    kind = content.pop("kind", None)
    record: Any = kinds.get(kind) if isinstance(kind, str) else None
    if record is None:
        raise EventError(f"its kind is {kind!r}, but the kinds are {', '.join(kinds)}")
    checks = _field_checks(record)
    if missing := checks.keys() - content.keys():
        raise EventError(f"{kind!r} lacks {', '.join(map(repr, sorted(missing)))}")
    for name, value in content.items():
        if name not in checks:
            raise EventError(f"{kind!r} has an unknown field {name!r}")
        type_name, is_valid = checks[name]
        if not is_valid(value):
            raise EventError(f"the field {name!r} of {kind!r} must be {type_name}, not {json.dumps(value)[:80]}")
    event: Record = record(**content)
    return event


@cache
def _field_checks(record: type[Any]) -> dict[str, tuple[str, Callable[[Any], bool]]]:
    """Return the name of the type and the check of each field of a record."""
    hints = get_type_hints(record)
    return {item.name: (_type_name(hints[item.name]), _type_check(hints[item.name])) for item in fields(record)}


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def _type_check(hint: Any) -> Callable[[Any], bool]:
    """Return a function that checks whether a value of JSON has a type."""
    arguments = get_args(hint)
    match get_origin(hint):
        case origin if origin in (Union, UnionType):
            options = [_type_check(argument) for argument in arguments]
            return lambda value: any(option(value) for option in options)
        case origin if origin is Literal:
            return lambda value: value in arguments
        case origin if origin is list:
            is_item = _type_check(arguments[0])
            return lambda value: isinstance(value, list) and all(map(is_item, value))
        case origin if origin is dict:
            is_value = _type_check(arguments[1])
            return lambda value: isinstance(value, dict) and all(map(is_value, value.values()))
    if hint is Any:
        return lambda value: True
    types = (int, float) if hint is float else (hint,)
    return lambda value: type(value) in types
