"""Parse the sections `space` and `constraints` of a search-space file."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reid_tune.config.experiment import canonical_key, leaf_fields
from reid_tune.config.keys import BUNDLE, LEAVES, is_bundle_key, nearest_key
from reid_tune.config.pydantic_messages import combine_errors
from reid_tune.search_space.bundles import matching_bundle
from reid_tune.search_space.conditions import Branch, Parameter, check_conditions, find_missing_keys, sort_by_conditions
from reid_tune.search_space.constraints import Constraint, parse_constraint
from reid_tune.search_space.range_syntax import parse_range
from reid_tune.search_space.ranges import Choice
from reid_tune.search_space.schema import COST_METRICS
from reid_tune.search_space.space import SearchSpace
from reid_tune.search_space.weights import WEIGHTS_KEY, absolute_weights

__all__ = ["changes_training", "find_space_errors", "parse_spaces", "typed_value"]

_FIELDS = dict(leaf_fields())
_SEARCHABLE = ("model.", "dataset.", "train.")
# Searched in a separate stage, which trains nothing.
_RERANKING = ("re_ranking.k1", "re_ranking.k2", "re_ranking.lambda_value")
# Set by the sweep itself, or without influence on the training of a trial.
_FIXED = {
    "dataset.train_dataset_dir",
    "dataset.test_dataset_dir",
    "dataset.query_dataset_dir",
    "dataset.extra_tests",
    "dataset.num_classes",
    "dataset.num_workers",
    "dataset.val_batch_size",
    "dataset.strict",
    "dataset.validation",
    "dataset.validation_fraction",
    "dataset.validation_seed",
    "dataset.validation_unseen_by",
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
    """Parse the section `space`, with the entries of all bundles, and the section `constraints`.

    Args:
        tree: Section `space`.
        constraints: Section `constraints`.
        base: The spec's values by dotted key, as plain data.
        source: Path of the file, for messages.

    Returns:
        The space of the trials, and the space of the stage `rerank`.

    Raises:
        InputError: keys are unknown or cannot be searched, or ranges, conditions or expressions are invalid; all are
            named.
    """
    errors: list[str] = []
    spaces = find_space_errors(tree, constraints, base, source, errors)
    if errors:
        raise combine_errors(source, errors)
    return spaces


def find_space_errors(
    tree: Mapping[str, Any],
    constraints: Sequence[str],
    base: dict[str, Any],
    source: str,
    errors: list[str],
    *,
    has_spec: bool = True,
    is_whole: bool = True,
    bundled: Collection[str] = (),
) -> tuple[SearchSpace, SearchSpace]:
    """Parse the sections and add one sentence for each error to `errors`; see `parse_spaces`.

    Args:
        errors: List of sentences.
        has_spec: Whether `base` is the spec, on whose values the conditions depend.
        is_whole: Whether `tree` has all keys of the file. Otherwise a condition may name any key of the spec.
        bundled: Keys of bundles, for messages.

    Returns:
        The spaces, without the faulty keys and constraints.
    """
    parameters = _parse_parameters(tree, errors, bundled)
    faulty = {canonical_key(str(key)) for key in tree} - parameters.keys()
    conditions = {key for parameter in parameters.values() for key in parameter.condition_keys()}
    possible = set() if is_whole else {key for key in conditions if key in LEAVES or is_bundle_key(key)}
    missing = find_missing_keys(parameters.values(), parameters.keys() | faulty | possible)
    errors += missing
    base = _with_bundles(base, parameters, known=not errors)
    named = [text for text in constraints if is_whole or BUNDLE not in text]
    expressions = _parse_constraints(named, base, errors)
    if not errors and not parameters.keys() - set(_RERANKING):
        errors.append(
            "space has no key that trials search: add one to those of re_ranking."
            if parameters
            else "space is empty: name at least one key with its range."
        )
    with_conditions = has_spec and is_whole and not missing and faulty.isdisjoint({*conditions, *bundled})
    space, re_ranking = (
        _space(parameters, expressions, base, source, errors, reranking, with_conditions) for reranking in (False, True)
    )
    return space, re_ranking


def _parse_parameters(tree: Mapping[str, Any], errors: list[str], bundled: Collection[str]) -> dict[str, Parameter]:
    """Return the parameters of the section `space`, and add one sentence for each faulty key to `errors`."""
    parameters: dict[str, Parameter] = {}
    for key, entry in tree.items():
        name = canonical_key(str(key))
        try:
            if name in parameters:
                raise ValueError("this key is given twice (an alias is a second spelling): keep one of them.")
            parameters[name] = _parse(name, entry)
        except ValueError as error:
            errors.append(f"{'bundle: ' if key in bundled else 'space.'}{key}: {error}")
    return parameters


def _parse_constraints(texts: Sequence[str], base: Mapping[str, Any], errors: list[str]) -> list[Constraint]:
    """Return the constraints, and add one sentence for each faulty one to `errors`."""
    constraints = list[Constraint]()
    for text in texts:
        try:
            constraints.append(parse_constraint(text, base))
        except ValueError as error:
            errors.append(str(error))
    return constraints


def _with_bundles(base: dict[str, Any], parameters: Mapping[str, Parameter], *, known: bool) -> dict[str, Any]:
    """Return the spec's values with the name of its bundle, None if it is not known or the spec is not in a bundle."""
    keys = [key for key in parameters if is_bundle_key(key)]
    completed = base | dict.fromkeys(keys)
    names = {key: matching_bundle(key, parameters.values(), base, completed) for key in keys} if known else {}
    return completed | names


def _space(
    parameters: Mapping[str, Parameter],
    constraints: Sequence[Constraint],
    base: dict[str, Any],
    source: str,
    errors: list[str],
    reranking: bool,
    with_conditions: bool,
) -> SearchSpace:
    """Return the part of a space that trials search, or the part of the re-ranking.

    One sentence for each error is added to `errors`.
    """
    selected = {name: parameter for name, parameter in parameters.items() if (name in _RERANKING) is reranking}
    others = parameters.keys() - selected.keys() | (set(COST_METRICS) if reranking else set())
    count = len(errors)
    errors += [
        f"space.{name} has a condition on {key}: re-ranking is searched separately from all other keys."
        for name, parameter in selected.items()
        for key in parameter.condition_keys()
        if key in others
    ]
    errors += [
        f"constraints: {constraint.text}: re-ranking is searched separately from all other keys: write two constraints."
        for constraint in constraints
        if reranking and others & set(constraint.keys) and selected.keys() & set(constraint.keys)
    ]
    ordered = list(selected.values())
    if len(errors) == count and with_conditions:
        try:
            ordered = sort_by_conditions(selected)
            errors += check_conditions(ordered, base)
        except ValueError as error:
            errors.append(str(error))
    relevant = [constraint for constraint in constraints if not others & set(constraint.keys)]
    return SearchSpace(tuple(ordered), tuple(relevant), base, source)


def changes_training(key: str) -> bool:
    """Whether a key of the spec is a part of the recipe that a trial trains, and so may be searched."""
    return key.startswith(_SEARCHABLE) and key not in _FIXED


def _parse(key: str, entry: Any) -> Parameter:
    if key not in LEAVES and not is_bundle_key(key):
        suggestion = nearest_key(key)
        raise ValueError("the spec has no such key" + (f"; did you mean {suggestion}?" if suggestion else "."))
    if key in LEAVES and key not in _RERANKING and not changes_training(key):
        raise ValueError(
            "this key cannot be searched: the sweep sets it, or it does not change the training of a trial."
        )
    several = isinstance(entry, list) and entry and all(isinstance(part, Mapping) for part in entry)
    entries = entry if several else [entry]
    names = [f"{key}#{index}" for index in range(len(entries))] if len(entries) > 1 else [key]
    parameter = Parameter(key, tuple(_branch(key, name, part) for name, part in zip(names, entries, strict=True)))
    if is_bundle_key(key) and not all(isinstance(branch.range, Choice) for branch in parameter.branches):
        raise ValueError("write the names of the bundles as a choice.")
    return parameter


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
    """Return a value as the field reads it, as plain data. A value that the field rejects is returned unchanged.

    Preflight reports the rejected ones. Paths become absolute, and names of bundles text.
    """
    if is_bundle_key(key):
        return value if value is None else str(value)
    if key not in _FIELDS:
        return value
    if key == WEIGHTS_KEY:
        return absolute_weights(value)
    adapter: TypeAdapter[Any] = TypeAdapter(_FIELDS[key].annotation or Any)
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError:
        return value
