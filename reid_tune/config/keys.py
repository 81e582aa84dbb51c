"""Dotted keys of the schema, and the nearest one to a misspelt key."""

import difflib
from collections.abc import Mapping
from typing import Any

from reid_tune.config.experiment import leaf_fields

__all__ = ["BUNDLE", "LEAVES", "SECTIONS", "is_bundle_key", "leaf_of", "nearest_key", "spec_values", "text_keys"]

LEAVES = {key for key, _ in leaf_fields()}
SECTIONS = {key.rsplit(".", depth)[0] for key in LEAVES for depth in range(1, key.count(".") + 1)}

# The key that has the name of a trial's bundle, see `search_space/bundles.py`; it is not a key of the spec.
BUNDLE = "bundle"


def is_bundle_key(key: str) -> bool:
    """Whether a key has the name of a bundle: `bundle`, or `bundle.LIST` where there are several lists."""
    return key.partition(".")[0] == BUNDLE


def spec_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's values of the spec, without the names of its bundles."""
    return {key: value for key, value in parameters.items() if not is_bundle_key(key)}


def nearest_key(key: str) -> str | None:
    """Return the schema's key with the most similar spelling, or None if none is similar."""
    same_leaf = [leaf for leaf in sorted(LEAVES) if leaf.rsplit(".")[-1] == key.rsplit(".")[-1]]
    candidates = same_leaf or difflib.get_close_matches(key[:100], LEAVES, n=1, cutoff=0.6)
    return candidates[0] if candidates else None


def leaf_of(key: str) -> str:
    """Return the schema's key that a location such as `dataset.pixel_std.1` is a part of, otherwise the location."""
    parts = key.split(".")
    prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in LEAVES), key)


def text_keys() -> set[str]:
    """Return the keys whose values are text, or text or null."""
    return {key for key, field in leaf_fields() if field.annotation in (str, str | None)}
