"""Validation of a mapping by a section of fields, with one sentence for each error."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from reid_tune.config.base import Section
from reid_tune.config.experiment import leaf_fields
from reid_tune.errors import InputError

__all__ = ["Fault", "combine_errors", "find_faults", "shorten", "validate"]

SectionType = TypeVar("SectionType", bound=Section)
_MAX_LINES, _MAX_VALUE = 20, 100  # lines of one error, characters of a value in it


@dataclass(frozen=True)
class Fault:
    """An error in one field.

    Attributes:
        key: Dotted key, which may be unknown.
        message: Sentence that names it.
        nearest: For an unknown key, the schema's key with the most similar spelling.
    """

    key: str
    message: str
    nearest: str | None = None


def validate(
    section: type[SectionType],
    tree: Mapping[str, Any],
    source: str,
    *,
    union_tags: Collection[str] = (),
) -> SectionType:
    """Build a section from nested mappings.

    Args:
        section: Class to build.
        tree: Values.
        source: Path or name of the values' origin, for messages.
        union_tags: Tags of unions, which pydantic adds to the locations of errors.

    Raises:
        InputError: Values are invalid; the message has one line for each error.
    """
    result, faults = find_faults(section, tree, union_tags=union_tags)
    if result is None:
        raise combine_errors(source, [fault.message for fault in faults])
    return result


def find_faults(
    section: type[SectionType],
    tree: Mapping[str, Any],
    *,
    union_tags: Collection[str] = (),
    raw_values: Mapping[str, Any] | None = None,
) -> tuple[SectionType | None, list[Fault]]:
    """Build a section from nested mappings.

    Args:
        section: Class to build.
        tree: Values.
        union_tags: Tags of unions, which pydantic adds to the locations of errors.
        raw_values: By key, values as the user wrote them, which messages show in place of what references stand for.

    Returns:
        The section, or None and the errors.
    """
    try:
        return section.model_validate(tree), []
    except ValidationError as error:
        faults = [_fault(dict(details), section, union_tags, raw_values or {}) for details in error.errors()]
        return None, _without_misspelt(faults)


def combine_errors(source: str, errors: Sequence[str]) -> InputError:
    """Return one error for all errors in one file."""
    if len(errors) == 1:
        return InputError(f"{source}: {errors[0]}")
    lines = [f"  {line}" for line in errors[:_MAX_LINES]]
    if len(errors) > _MAX_LINES:
        lines.append(f"  ... and {len(errors) - _MAX_LINES:,} more")
    return InputError(f"{source}: {len(errors):,} problems:\n" + "\n".join(lines))


def shorten(value: Any) -> str:
    """Return a value for a message: its `repr`, cut where it is long."""
    text = repr(value[:_MAX_VALUE] if isinstance(value, str | list | tuple) else value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."


def _fault(
    details: Mapping[str, Any], section: type[Section], union_tags: Collection[str], raw_values: Mapping[str, Any]
) -> Fault:
    """Return one error of pydantic as `KEY = VALUE: what is wrong.`"""
    key = ".".join(str(part)[:_MAX_VALUE] for part in details["loc"] if part not in union_tags)
    return Fault(key, _sentence(key, details, section, raw_values))


def _without_misspelt(faults: list[Fault]) -> list[Fault]:
    """Return the faults without keys that are missing because they are misspelt: those have a sentence already."""
    unknown = [fault.key for fault in faults if fault.message.startswith("unknown key ")]

    def is_misspelt(key: str) -> bool:
        siblings = [other for other in unknown if other.rpartition(".")[0] == key.rpartition(".")[0]]
        return bool(difflib.get_close_matches(key, siblings, n=1))

    return [fault for fault in faults if not (fault.message.endswith(" is missing.") and is_misspelt(fault.key))]


def _sentence(key: str, details: Mapping[str, Any], section: type[Section], raw_values: Mapping[str, Any]) -> str:
    value = details["input"]
    if details["type"] == "missing":
        return f"{key} is missing."
    if details["type"] == "extra_forbidden":
        return f"unknown key {key}{_suggestion(key, section)}"
    message = details["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    message = message.replace("a valid tuple", "a list, such as [2, 3]")
    message = re.sub("a valid dictionary( or instance of .*)?", "a mapping of keys to values", message)
    if details["type"] == "value_error" and isinstance(value, Mapping | BaseModel):  # a rule between keys, named by it
        return f"{key}: {message}.".removeprefix(": ")
    text = next((text for name, text in raw_values.items() if f"{key}.".startswith(f"{name}.")), value)
    return f"{key}: {message}." if key == "encryption_key" else f"{key} = {shorten(text)}: {message}."


def _suggestion(key: str, section: type[Section]) -> str:
    leaves = [name for name, _ in leaf_fields(section)]
    names = leaves + sorted({name.partition(".")[0] for name in leaves})
    # The fields of list items are not among the names, and naming the list itself does not help.
    matches = [match for match in difflib.get_close_matches(key, names, n=1) if not key.startswith(f"{match}.")]
    return f"; did you mean {matches[0]}?" if matches else "."
