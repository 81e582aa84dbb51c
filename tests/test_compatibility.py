"""docs/compatibility.md: its tests exist, its keys are those of the schema, and no known defect is missing."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from reid_tune.config import tao_keys as foreign
from reid_tune.config.experiment import canonical_key, leaf_fields

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "compatibility.md"
HEAD = ["field or behaviour", "the reference documents", "the reference does", "reid-tune", "our test"]
KEYS = {key for key, _ in leaf_fields()}
# Defects that a user of train, evaluate, inference or export can trigger.
DEFECTS = {1, 2, 3, 4, 5, 6, 8, 12, 13, 14, 15, 16, 17, 20, 21}


def rows() -> list[list[str]]:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


ROWS = [row for row in rows() if row != HEAD and not row[0].startswith("---")]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def keys(row: list[str]) -> list[str]:
    """The keys of a row's first cell; a file and a command have a name there, too."""
    return [word for word in words(row[0]) if "." in word and not word.endswith((".yaml", ".json", ".pth"))]


@cache
def names_of_tests(path: Path) -> set[str]:
    found = ast.parse(path.read_text()).body
    return {node.name for node in found if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_table_has_the_same_columns() -> None:
    assert rows().count(HEAD) > 5 and 60 < len(ROWS) <= 110
    assert [row for row in rows() if len(row) != len(HEAD)] == []
    assert [row for row in ROWS if not all(row)] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_names_of_tests_a_row_exist(row: list[str]) -> None:
    assert row[-1] == "<br>".join(f"`{word}`" for word in words(row[-1])) != ""
    for word in words(row[-1]):
        path, _, name = word.partition("::")
        assert path.startswith("tests/") and (ROOT / path).is_file(), word
        assert name in names_of_tests(ROOT / path), word


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_keys_of_a_row_are_known(row: list[str]) -> None:
    assert [key for key in keys(row) if canonical_key(key) not in KEYS and not foreign.is_tao_key(key)] == []


def test_every_key_that_does_nothing_is_told() -> None:
    told = {word for row in ROWS for word in words(row[0])}
    assert set(foreign._INACTIVE) | {"wandb"} <= told


def test_every_defect_has_a_row() -> None:
    numbers = [found for row in ROWS for found in re.findall(r"\(defects? ([\d, ]+)\)", row[0])]
    assert {int(number) for found in numbers for number in found.split(",")} >= DEFECTS
