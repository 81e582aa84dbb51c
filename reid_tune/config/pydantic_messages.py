"""Validation of a mapping by a section of fields, with one sentence for each error."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from reid_tune.config.base import Section
from reid_tune.config.experiment import leaf_fields
from reid_tune.errors import InputError

__all__ = ["combine_errors", "validate"]

SectionType = TypeVar("SectionType", bound=Section)


def validate(
    section: type[SectionType],
    tree: Mapping[str, Any],
    source: str,
    *,
    errors: Sequence[str] = (),
    union_tags: Collection[str] = (),
) -> SectionType:
    """Build a section from nested mappings.

    Args:
        section: Class to build.
        tree: Values.
        source: Path or name of the values' origin, for messages.
        errors: Messages on earlier errors.
        union_tags: Tags of unions, which pydantic adds to the locations of errors.

    Raises:
        InputError: `errors` is not empty, or values are invalid; the message has one line for each error.
    """
    try:
        result = section.model_validate(tree)
    except ValidationError as error:
        sentences = [_sentence(dict(details), section, union_tags) for details in error.errors()]
        raise combine_errors(source, [*errors, *sentences]) from None
    if errors:
        raise combine_errors(source, errors)
    return result


def combine_errors(source: str, errors: Sequence[str]) -> InputError:
    """Return one error for all errors in one file."""
    if len(errors) == 1:
        return InputError(f"{source}: {errors[0]}")
    return InputError(f"{source}: {len(errors)} problems:\n" + "\n".join(f"  {line}" for line in errors))


def _sentence(details: Mapping[str, Any], section: type[Section], union_tags: Collection[str]) -> str:
    """Return one error of pydantic as `KEY = VALUE: what is wrong.`"""
    key, value = ".".join(str(part) for part in details["loc"] if part not in union_tags), details["input"]
    if details["type"] == "missing":
        return f"{key} is missing."
    if details["type"] == "extra_forbidden":
        return f"unknown key {key}{_suggestion(key, section)}"
    message = details["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    message = message.replace("a valid tuple", "a list, such as [2, 3]")
    if details["type"] == "value_error" and isinstance(value, Mapping | BaseModel):  # a rule between keys, named by it
        return f"{key}: {message}.".removeprefix(": ")
    return f"{key}: {message}." if key == "encryption_key" else f"{key} = {value!r}: {message}."


def _suggestion(key: str, section: type[Section]) -> str:
    leaves = [name for name, _ in leaf_fields(section)]
    names = leaves + sorted({name.partition(".")[0] for name in leaves})
    # The fields of list items are not among the names, and naming the list itself does not help.
    matches = [match for match in difflib.get_close_matches(key, names, n=1) if not key.startswith(f"{match}.")]
    return f"; did you mean {matches[0]}?" if matches else "."
