"""The sections `space` and `constraints` of a search-space file, read."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reid_tune.config.experiment import canonical_key, leaf_fields
from reid_tune.config.load import LEAVES, combine_errors, nearest_key
from reid_tune.search_space.conditions import Branch, Parameter, check_conditions, sort_by_conditions
from reid_tune.search_space.constraints import Constraint, parse_constraint
from reid_tune.search_space.range_syntax import parse_range
from reid_tune.search_space.space import SearchSpace

__all__ = ["parse_spaces", "typed_value"]

_FIELDS = dict(leaf_fields())
_SEARCHABLE = ("model.", "dataset.", "train.")
# Searched in a stage of their own, which trains nothing.
_RERANKING = ("re_ranking.k1", "re_ranking.k2", "re_ranking.lambda_value")
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


def parse_spaces(
    tree: Mapping[str, Any], constraints: Sequence[str], base: dict[str, Any], source: str
) -> tuple[SearchSpace, SearchSpace]:
    """Read the sections `space` and `constraints`: what trials search, and what the stage `rerank` does.

    Args:
        base: The spec's values by dotted key, as plain data.

    Raises:
        InputError: all unknown or fixed keys and malformed ranges and expressions; else what is wrong with conditions.
    """
    parameters: dict[str, Parameter] = {}
    expressions, wrong = [], [] if tree else ["space is empty: name at least one key with its range."]
    for key, entry in tree.items():
        name = canonical_key(str(key))
        try:
            if name in parameters:
                raise ValueError("this key is given twice (an alias is a second spelling): keep one.")
            parameters[name] = _parse(name, entry)
        except ValueError as error:
            wrong.append(f"space.{key}: {error}")
    for text in constraints:
        try:
            expressions.append(parse_constraint(text, base))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise combine_errors(source, wrong)
    later = [_space(parameters, expressions, base, source, reranking) for reranking in (False, True)]
    if not later[0].parameters:
        raise combine_errors(source, ["space has no key that trials could search: name one beside re_ranking."])
    return later[0], later[1]


def _space(
    parameters: Mapping[str, Parameter],
    constraints: Sequence[Constraint],
    base: dict[str, Any],
    source: str,
    reranking: bool,
) -> SearchSpace:
    """The part of a space that trials search, or the part of the re-ranking."""
    own = {name: found for name, found in parameters.items() if (name in _RERANKING) is reranking}
    others = parameters.keys() - own.keys()
    wrong = [
        f"space.{name} has a condition on {key}: re-ranking is searched apart from all other keys."
        for name, parameter in own.items()
        for key in parameter.condition_keys()
        if key in others
    ]
    wrong += [
        f"constraints: {constraint.text}: re-ranking is searched apart from all other keys; write two constraints."
        for constraint in constraints
        if others & set(constraint.keys) and own.keys() & set(constraint.keys)
    ]
    if wrong:
        raise combine_errors(source, wrong)
    try:
        ordered = sort_by_conditions(own)
    except ValueError as error:
        raise combine_errors(source, [str(error)]) from None
    if wrong := check_conditions(ordered, base):
        raise combine_errors(source, wrong)
    concerns = [constraint for constraint in constraints if not others & set(constraint.keys)]
    return SearchSpace(tuple(ordered), tuple(concerns), base, source)


def _parse(key: str, entry: Any) -> Parameter:
    if key not in LEAVES:
        near = nearest_key(key)
        raise ValueError(f"the spec has no such key{f'; did you mean {near}?' if near else '.'}")
    if key not in _RERANKING and (key in _FIXED or not key.startswith(_SEARCHABLE)):
        raise ValueError("this key cannot be searched: the sweep sets it, or it does not change what a trial learns.")
    several = isinstance(entry, list) and entry and all(isinstance(part, Mapping) for part in entry)
    entries = entry if several else [entry]
    names = [f"{key}#{index}" for index in range(len(entries))] if len(entries) > 1 else [key]
    return Parameter(key, tuple(_branch(key, name, part) for name, part in zip(names, entries, strict=True)))


def _branch(key: str, name: str, entry: Any) -> Branch:
    when = {}
    if isinstance(entry, Mapping) and "when" in entry:
        conditions = entry["when"]
        entry = {kind: values for kind, values in entry.items() if kind != "when"}
        if not isinstance(conditions, Mapping) or not conditions:
            raise ValueError(f"when = {conditions!r}: write conditions, such as {{train.optim.name: SGD}}.")
        for other, values in ((canonical_key(str(other)), values) for other, values in conditions.items()):
            when[other] = tuple(
                typed_value(other, value) for value in (values if isinstance(values, list) else [values])
            )
    return Branch(name, parse_range(entry, lambda value: typed_value(key, value)), when)


def typed_value(key: str, value: Any) -> Any:
    """A value as the field reads it, in plain data; as it is where the field refuses it, which preflight reports."""
    if key not in _FIELDS:
        return value
    adapter: TypeAdapter[Any] = TypeAdapter(_FIELDS[key].annotation or Any)
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError:
        return value
