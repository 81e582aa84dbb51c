"""The schema for editors and the page about all fields."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from reid_tune.config.experiment import Experiment, leaf_fields
from reid_tune.config.json_schema import json_schema, markdown_page

from .test_examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_of_the_documentation_fit_the_json_schema(text: str) -> None:
    jsonschema.validate(yaml.safe_load(text), json_schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.name)
def test_specs_of_the_repository_fit_the_json_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


@pytest.mark.parametrize(
    "tree",
    [
        {"model": {"backbon": "x"}},
        {"model": {"neck": "x"}},
        {"dataset": {"prob": 2}},
        {"train": {"optim": {"steps": "x"}}},
        {"dataset": {"extra_tests": [{"name": "x"}]}},
    ],
)
def test_the_json_schema_refuses_what_is_wrong(tree: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, json_schema())


def test_the_page_has_a_row_for_every_field() -> None:
    text, rows = markdown_page(), 0
    for section in text.split("\n## ")[1:]:
        name, *lines = section.splitlines()
        prefix = "" if name == "Top level" else f"{name}."
        for key, field in leaf_fields():
            head, _, leaf = key.rpartition(".")
            if f"{head}." == prefix or (not head and not prefix):
                row = next(line for line in lines if line.startswith(f"| `{leaf}` |"))
                assert row.count(" | ") == 3 and str(field.description).replace("|", "\\|") in row
                rows += 1
    assert rows == len(list(leaf_fields()))


def test_the_page_in_the_documents_is_fresh() -> None:
    stale = "docs/spec.md is stale: run 'reid-tune spec page > docs/spec.md'"
    assert (ROOT / "docs" / "spec.md").read_text() == markdown_page(), stale


def test_defaults_on_the_page_are_the_schemas() -> None:
    assert "| `feat_dim` | `256`, Swin `1024` |" in markdown_page() and Experiment().model.feat_dim == 256
