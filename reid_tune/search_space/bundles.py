"""Bundles: keys whose values are chosen together, as one category and ranges that depend on it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from reid_tune.config.experiment import canonical_key
from reid_tune.config.keys import BUNDLE
from reid_tune.search_space.conditions import Parameter
from reid_tune.search_space.weights import WEIGHTS_KEY

__all__ = ["expand_bundles", "matching_bundle"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_LIST_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_EXAMPLE = "such as [{name: r50, model.backbone: resnet_50}]"


def expand_bundles(section: Any, errors: list[str]) -> dict[str, Any]:
    """Return the entries of the section `space` that say the same as the section `bundle`.

    The names of the bundles are the values of the key `bundle`, and of `bundle.LIST` with several lists. Every other
    key has its entry of each bundle, with the bundle's name as a condition.

    Args:
        section: A list of bundles, or a mapping of names to such lists.
        errors: List to which one sentence is added for each error.
    """
    if not isinstance(section, Mapping | list | tuple):
        errors.append(
            f"bundle = {section!r}: write a list of bundles, {_EXAMPLE}, or a mapping of names to such lists."
        )
        return {}
    lists: dict[str, Any] = {BUNDLE: section} if section else {}
    if isinstance(section, Mapping):
        lists = {f"{BUNDLE}.{name}": bundles for name, bundles in section.items()}
    entries: dict[str, Any] = {}
    for key, bundles in lists.items():
        if key != BUNDLE and not _LIST_NAME.fullmatch(key.removeprefix(f"{BUNDLE}.")):
            errors.append(f"{key}: use letters, digits and '_' for the name of a list.")
            continue
        expanded = _expand(key, bundles, errors)
        shared = [other for other in entries if other in expanded]
        errors += [f"{key}: {other} is also in another list of bundles: keep one." for other in shared]
        entries |= expanded
    return entries


def _expand(key: str, bundles: Any, errors: list[str]) -> dict[str, Any]:
    if not isinstance(bundles, Sequence) or not bundles or not all(isinstance(part, Mapping) for part in bundles):
        errors.append(f"{key} = {bundles!r}: write a list of bundles, {_EXAMPLE}.")
        return {}
    names: list[str] = []
    ranges: dict[str, list[dict[str, Any]]] = {}
    for index, bundle in enumerate(bundles):
        try:
            entries = _entries(bundle)
            name = _name(bundle.get("name"), entries)
            if name in names:
                raise ValueError(f"another one is named {name}: give each a different `name`.")
            branches = {other: _conditional(other, entry, key, name) for other, entry in entries.items()}
            for other in branches:
                ranges.setdefault(other, []).extend(branches[other])
            names.append(name)
        except ValueError as error:
            errors.append(f"{key}.{index}: {error}")
    category = {"choice": names} if len(names) > 1 else {"value": next(iter(names), None)}
    return {key: category} | {other: parts[0] if len(parts) == 1 else parts for other, parts in ranges.items()}


def _entries(bundle: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the entries of a bundle by their usual spelling."""
    entries: dict[str, Any] = {}
    for key, entry in bundle.items():
        if (name := canonical_key(str(key))) in entries:
            raise ValueError(f"{key} is given twice (an alias is a second spelling): keep one of them.")
        if name != "name":
            entries[name] = entry
    return entries


def _name(name: Any, entries: Mapping[str, Any]) -> str:
    """Return the name of a bundle: the given one, otherwise its first value that is not a range."""
    if not entries:
        raise ValueError("it has no keys of the spec.")
    if name is None:
        values = ((key, entry) for key, entry in entries.items() if isinstance(entry, str | int | float))
        key, value = next(values, ("", None))
        if value is None:
            raise ValueError("its name cannot be derived from a value: give it a `name`.")
        text = PurePosixPath(str(value)).stem if key == WEIGHTS_KEY else str(value)
        name = re.sub(r"[^A-Za-z0-9_.+-]", "-", text).lstrip("_.+-")[:64]
    if not _NAME.fullmatch(str(name)):
        raise ValueError(f"name = {name!r}: use at most 64 letters, digits and '_.+-', a letter or digit first.")
    return str(name)


def _conditional(key: str, entry: Any, bundle_key: str, name: str) -> list[dict[str, Any]]:
    """Return the ranges of a key in the bundle with a name, each with the bundle as a condition."""
    if isinstance(entry, Mapping):
        branches = [entry]
    elif isinstance(entry, list) and entry and all(isinstance(part, Mapping) for part in entry):
        branches = entry
    else:
        branches = [{"value": entry}]
    if faulty := next((branch for branch in branches if not isinstance(branch.get("when", {}), Mapping)), None):
        raise ValueError(f"{key}: when = {faulty['when']!r}: write conditions, such as {{train.optim.name: SGD}}.")
    if any(bundle_key in branch.get("when", {}) for branch in branches):
        raise ValueError(f"{key}: its `when` names {bundle_key}, but a bundle's keys apply in {name} only: remove it.")
    return [{**branch, "when": {bundle_key: name, **branch.get("when", {})}} for branch in branches]


def matching_bundle(
    key: str, parameters: Iterable[Parameter], values: Mapping[str, Any], base: Mapping[str, Any]
) -> str | None:
    """Return the name of the bundle that has some values, None if no bundle has them.

    A bundle has them if each of its fixed values is equal. Of several such bundles those are preferred whose ranges
    have the values. Of these it is the spec's, otherwise the first one.

    Args:
        key: `bundle` or `bundle.LIST`.
        parameters: All parameters of the space.
        values: Values by key. Keys of a bundle that are missing count as equal; without any it is the spec's bundle.
        base: The spec's values, with the name of its bundle or None.
    """
    by_key = {parameter.key: parameter for parameter in parameters}
    names = [str(name) for branch in by_key[key].branches for name in branch.range.values() or ()]
    if values.get(key) in names:
        return str(values[key])
    bundled = [parameter for parameter in by_key.values() if key in parameter.condition_keys()]
    bundled = [parameter for parameter in bundled if parameter.key in values]
    if not bundled:
        return base[key]

    def has_values(name: str, *, fixed_only: bool) -> bool:
        for parameter in bundled:
            branch = parameter.active_branch({**base, **values, key: name})
            if branch is None or (fixed_only and branch.range.distributions(branch.name)):
                continue
            if branch.range.encode(branch.name, values[parameter.key]) is None:
                return False
        return True

    matches = [name for name in names if has_values(name, fixed_only=True)]
    matches = [name for name in matches if has_values(name, fixed_only=False)] or matches
    return base[key] if base[key] in matches else next(iter(matches), None)
