"""The words of the code and the documents: docs/glossary.md and CONTRIBUTING.md decide which are used."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import reid_tune

ROOT = Path(reid_tune.__file__).parents[1]
# Regular expressions of words and phrases that are not used, with what to write instead.
WORDS = {
    r"behind (?!a proxy|a firewall)": "after",
    r"besides?": "next to, in addition to",
    r"anew": "again",
    r"at hand": "available",
    r"go(es|ing)? on|went on": "continue",
    r"(?<!there )(is|are|was|were) no(?! longer| more| less)": "is not a, there is no",
    r"(is|are|was|were|stays?) (away|dead)": "is unreachable",
    r"of (its|their) own": "separate, own",
    r"as of(?! \d)": "as in, since",
    r"hand(s|ed)? in": "submit",
    r"tak(e|es|en|ing) in": "apply, read",
    r"so it is": "name the condition",
    r"in words": "as text",
    r"meanwhile": "in the meantime, or nothing",
    r"surroundings": "environment",
    r"whom": "rephrase",
    r"thereof|therein|thereby": "rephrase",
    r"purse|crew|handful|janitor|intake": "rename",
    r"lesson|setbacks?": "outcome, retry",
}
# Names of variables, parameters and attributes that say nothing of their content.
NAMES = {"found", "own", "wanted", "theirs", "mine", "few", "whom", "told", "anew"}

_PROSE = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)
_STRINGS = {tokenize.STRING, tokenize.COMMENT} | {getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def sources() -> list[Path]:
    return sorted((ROOT / "reid_tune").rglob("*.py"))


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])


def prose_of_code(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of the comments, docstrings and messages of a module."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _STRINGS:
            # A message is often written in several lines, and a phrase may span two of a docstring.
            yield token.start[0], re.sub(r"\s+", " ", token.string)


def prose_of_document(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of a Markdown file without its code."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def unused_words(texts: Iterator[tuple[int, str]]) -> list[str]:
    return [f"{number}: {match[0]!r} in {text[:90]!r}" for number, text in texts for match in _PROSE.finditer(text)]


def test_the_check_sees_words_in_each_kind_of_text() -> None:
    code = '"""So it is."""\nname = f"{name} goes on: it is no file"  # anew\n'
    assert [line.split(":")[0] for line in unused_words(prose_of_code(code))] == ["1", "2", "2", "2"]
    text = "It is anew.\n```\nanew\n```\nSee `anew`, [this](anew.md).\n"
    assert len(unused_words(prose_of_document(text))) == 1


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_code_uses_plain_words(path: Path) -> None:
    assert unused_words(prose_of_code(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_use_plain_words(path: Path) -> None:
    assert unused_words(prose_of_document(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_names_say_what_they_hold(path: Path) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    names = [f"{token.start[0]}: {token.string}" for token in tokens if token.type == tokenize.NAME]
    assert [name for name in names if name.split(": ")[1] in NAMES] == []
