"""Wrong values in a search-space file: one value is one fault, and one fault is one sentence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from reid_tune.errors import InputError
from reid_tune.search_space.load import load_sweep
from reid_tune.search_space.schema import SweepFile

from ..helpers.simulated_driver import write_sweep, write_yaml

RATE, NAME, SIZE = "train.optim.base_lr", "train.optim.name", "dataset.batch_size"
# Sections refer to each other, so that a fault in one could have a second sentence in another.
FILE: dict[str, Any] = {
    "objective": [{"metric": "mAP"}, {"metric": "gflops"}],
    "space": {
        NAME: {"choice": ["Adam", "AdamW"]},
        RATE: [{"loguniform": [1e-4, 1e-2], "when": {NAME: "Adam"}}, {"value": 0.1, "when": {NAME: "AdamW"}}],
        SIZE: {"quniform": [32, 64, 32], "when": {"bundle": "small"}},
        "re_ranking.k1": {"int": [5, 9]},
    },
    "bundle": [{"name": "small", "model.feat_dim": 64}, {"name": "large", "model.feat_dim": {"int": [65, 99]}}],
    "constraints": ["bundle == 'small' or train.optim.base_lr < 0.2", "gflops <= 50", "re_ranking.k1 > 5"],
    "search": {"sampler": "random", "seed": 1, "start_from": ["a", {"bundle": "small"}], "learn_from": ["b"]},
    "scheduler": {"name": "asha", "grace_period": 2, "reduction_factor": 3},
    "budget": {"trials": 9, "hours": 1, "gpu_hours": 1, "cpu_hours": 1, "patience": {"min_gain": 0.3}},
    "target": {"mAP": 0.9, "Rank-1": 0.9},
    "confirm": {"candidates": 1, "repeats": 1, "margin": 0.5},
    "refit": {"seeds": 1},
    "resources": {"gpus_per_worker": 0.5, "custom": {"disk": 1.0}},
    "keep": 1,
    "storage": "runs",
    "registry": {"model": "model", "alias": "champion"},
}
WRONG = [0.5, None, "text", [5], {"a": 5}]


def paths(section: type[BaseModel], prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All keys of the schema, sections too."""
    for name, field in section.model_fields.items():
        yield (*prefix, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from paths(field.annotation, (*prefix, name))


PATHS = [*paths(SweepFile), ("objective", 0), ("objective", 1, "metric"), ("objective", 1, "mode")]
PATHS += [("budget", "patience", "min_gain"), ("target", "mAP"), ("target", "a"), ("resources", "custom", "disk")]
PATHS += [("search", "start_from", 1), ("search", "learn_from", 0), ("constraints", 0)]
PATHS += [("space", key) for key in (NAME, RATE, SIZE, "re_ranking.k1", "model.fet_dim", "results_dir")]
PATHS += [("space", RATE, 0), ("space", RATE, 0, "loguniform"), ("space", RATE, 0, "when")]
PATHS += [("space", NAME, "choice"), ("space", SIZE, "quniform"), ("space", SIZE, "when"), ("space", SIZE, "list")]
PATHS += [("bundle", 0), ("bundle", 0, "name"), ("bundle", 1, "model.feat_dim"), ("bundle", 1, "model.fet_dim")]
PATHS += [("unknown",), ("search", "unknown"), (5,), ("budget", 5)]


def test_the_file_has_no_fault(tmp_path: Path) -> None:
    load_sweep(write_sweep(tmp_path, **FILE))


# Two faults: a key that is unknown, and one that is missing.
SKIPPED: dict[tuple[Any, ...], list[Any]] = {("budget", "patience"): [{"a": 5}]}


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    if isinstance(tree, list):
        return [replaced(item, path[1:], value) if index == path[0] else item for index, item in enumerate(tree)]
    return {**tree, path[0]: replaced(tree.get(path[0], {}), path[1:], value)}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_a_wrong_value_is_one_sentence(tmp_path: Path, path: tuple[Any, ...]) -> None:
    text, refused = write_sweep(tmp_path, **FILE).read_text(), 0
    values = [value for value in WRONG if value not in SKIPPED.get(path, [])]
    for value in values:
        tree = yaml.safe_load(text)
        file = write_yaml(tmp_path / "sweep.yaml", replaced(tree, path, value))
        try:
            load_sweep(file)
        except InputError as error:
            refused += 1
            message = str(error)
            assert "\n" not in message and str(tmp_path) in message, (value, message)
            assert "ValidationError" not in message and "instance of" not in message, (value, message)
            assert str(path[0]) in message, (value, message)
    assert refused


@pytest.mark.parametrize("path", [("budget", "trials"), ("scheduler", "grace_period"), ("keep",), ("budget", "hours")])
def test_a_number_is_not_true_or_false(tmp_path: Path, path: tuple[str, ...]) -> None:
    tree = yaml.safe_load(write_sweep(tmp_path, **FILE).read_text())
    with pytest.raises(InputError, match=f"sweep.yaml: {'.'.join(path)} = True: should be a number.$"):
        load_sweep(write_yaml(tmp_path / "sweep.yaml", replaced(tree, path, True)))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("search", "start_from"), 5, "the name of a sweep, or a list of names and of {key: value}"),
        (("search", "start_from"), [5], "the name of a sweep, or a list of names and of {key: value}"),
        (("scheduler", "grace_period"), "x", "a whole number of epochs or auto"),
        (("scheduler", "grace_period"), 1.5, "a whole number of epochs or auto"),
        (("resources", "gpus_per_worker"), "x", "a number of GPUs or auto"),
        (("objective",), "mAP", "a mapping of keys to values"),
    ],
)
def test_the_sentence_names_the_allowed_forms(tmp_path: Path, path: tuple[str, ...], value: Any, message: str) -> None:
    tree = yaml.safe_load(write_sweep(tmp_path, **FILE).read_text())
    file = write_yaml(tmp_path / "sweep.yaml", replaced(tree, path, value))
    with pytest.raises(InputError) as error:
        load_sweep(file)
    assert str(error.value) == f"{file}: {'.'.join(path)} = {value!r}: should be {message}."


def test_a_target_in_percent_is_told_that_scores_are_fractions(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, target={"mAP": 85})
    with pytest.raises(InputError) as error:
        load_sweep(file)
    assert str(error.value) == f"{file}: target: mAP = 85: scores are fractions, such as 0.85 for 85 %."


def test_a_misspelt_key_is_not_missing_too(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, budget={"patience": {"min_gian": 0.3}})
    with pytest.raises(InputError) as error:
        load_sweep(file)
    assert str(error.value) == f"{file}: unknown key budget.patience.min_gian."
    tree = yaml.safe_load(write_sweep(tmp_path).read_text())
    del tree["name"]
    with pytest.raises(InputError) as error:
        load_sweep(write_yaml(file, tree | {"nam": "x"}))
    assert str(error.value) == f"{file}: unknown key nam; did you mean name?"
    with pytest.raises(InputError, match="2 problems"):
        load_sweep(write_yaml(file, tree | {"colour": "x"}))
