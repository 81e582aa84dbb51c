"""Limits of size: what is longer is divided."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import reid_tune

ROOT = Path(reid_tune.__file__).parent
FILE_LINES, FUNCTION_LINES, PUBLIC_METHODS = 250, 45, 12

Function = ast.FunctionDef | ast.AsyncFunctionDef


def too_large(text: str) -> Iterator[str]:
    """What of a module is above a limit."""
    if (lines := len(text.splitlines())) > FILE_LINES:
        yield f"{lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function) and (length := node.end_lineno - node.lineno + 1) > FUNCTION_LINES:
            yield f"{node.name}: {length} lines"
        if isinstance(node, ast.ClassDef):
            public = [item for item in node.body if isinstance(item, Function) and not item.name.startswith("_")]
            if len(public) > PUBLIC_METHODS:
                yield f"{node.name}: {len(public)} public methods"


def test_each_limit_is_seen() -> None:
    long_function = "def long():\n" + "    pass\n" * FUNCTION_LINES
    large_class = "class Large:\n" + "".join(f"    def method_{n}(self): ...\n" for n in range(PUBLIC_METHODS + 1))
    assert list(too_large(long_function)) == [f"long: {FUNCTION_LINES + 1} lines"]
    assert list(too_large(large_class)) == [f"Large: {PUBLIC_METHODS + 1} public methods"]
    assert list(too_large("pass\n" * (FILE_LINES + 1))) == [f"{FILE_LINES + 1} lines"]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_function_or_class_is_too_large(path: Path) -> None:
    assert list(too_large(path.read_text(encoding="utf-8"))) == []
