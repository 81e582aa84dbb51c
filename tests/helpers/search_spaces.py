"""Spaces over the default spec, for tests of their language."""

from typing import Any

from reid_tune.config.load import build_experiment
from reid_tune.search_space.parse import parse_spaces
from reid_tune.search_space.space import SearchSpace, plain_values

BASE = plain_values(build_experiment({}, {}, "spec"))


def make_spaces(tree: dict[str, Any], *constraints: str) -> tuple[SearchSpace, SearchSpace]:
    return parse_spaces(tree, constraints, BASE, "some.yaml")


def make_space(tree: dict[str, Any], *constraints: str) -> SearchSpace:
    return make_spaces(tree, *constraints)[0]
