"""Reading of YAML from files and arguments: bounded in size, depth and expansion, and of plain values only.

Text, decimal numbers, true and false, null, lists and mappings with text as keys. Dates, sexagesimal, octal and
hexadecimal numbers stay text, which a field of numbers refuses by name.
"""

import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
import yaml.composer
import yaml.constructor
import yaml.resolver

from reid_tune.errors import InputError

__all__ = ["YamlFile", "parse_overrides", "parse_value", "read_yaml", "read_yaml_file"]

_MAX_CHARACTERS = 100_000  # the parser reads about 100,000 a second, and a spec has some 3,000
_MAX_NODES = 20_000  # with each alias counted as what it stands for
_MAX_DEPTH = 40
# More digits than any number of a spec has; int() of thousands of digits takes seconds.
_MAX_DIGITS = 18
# NUL and other control characters, of which YAML and paths allow none; a lone surrogate is a byte outside UTF-8.
_UNUSABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_CONTROL = "it has a control character or a byte outside UTF-8"
_TAG = "tag:yaml.org,2002:"


class YamlFile(dict[str, Any]):
    """The mapping in a YAML file.

    Attributes:
        lines: Line number of each key, by dotted key, from 1.
    """

    def __init__(self, tree: dict[str, Any], lines: dict[str, int]) -> None:
        super().__init__(tree)
        self.lines = lines


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Return the mapping in a YAML file, see `read_yaml_file`."""
    return dict(read_yaml_file(path))


def read_yaml_file(path: Path | str) -> YamlFile:
    """Read the mapping in a YAML file.

    Raises:
        InputError: The file is missing, unreadable, too large, not YAML of plain values, or not a mapping.
    """
    loader = _load(_read_text(path), str(path))
    if not isinstance(loader.value, dict):
        raise InputError(f"{path} does not contain a mapping of keys to values.")
    return YamlFile(loader.value, loader.lines)


def parse_value(text: str, source: str) -> Any:
    """Return the value in a YAML text.

    Raises:
        InputError: The text is not YAML of plain values; the message begins with `source` and does not quote the text.
    """
    return _load(text, source, is_file=False).value


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Return arguments `key=value`, with values in YAML, as a mapping.

    Raises:
        InputError: An argument has no `=`, or a value is not YAML of plain values.
    """
    parsed = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"{text[:80]!r} is not an override: write key=value, for example train.num_epochs=20.")
        if _UNUSABLE.search(key) or len(key) > 200:
            raise InputError(f"{key[:80]!r} is not a key: write key=value, for example train.num_epochs=20.")
        parsed[key] = parse_value(value, f"the value of the override {key}") if value else ""
    return parsed


def _read_text(path: Path | str) -> str:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise InputError(f"cannot read {path}: it is not a regular file.")
        if status.st_size > 4 * _MAX_CHARACTERS:
            raise InputError(f"cannot read {path}: it has more than {_MAX_CHARACTERS:,} characters.")
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise InputError(f"cannot read {str(path)[:200]}: {reason}.") from None


def _load(text: str, source: str, *, is_file: bool = True) -> "_Loader":
    if len(text) > _MAX_CHARACTERS:
        raise InputError(f"{source} has more than {_MAX_CHARACTERS:,} characters.")
    try:
        if match := _UNUSABLE.search(text):
            raise _error(_CONTROL, yaml.Mark("", 0, text.count("\n", 0, match.start()), 0, None, 0))
        loader = _Loader(text)
        loader.value = loader.get_single_data()
    except yaml.YAMLError as error:
        if not is_file:
            # The text of an argument may be a secret, and some messages of the parser quote it.
            reason = (
                error.problem if isinstance(error, _BoundsError) else "write a number, a text or a list like [2, 3]"
            )
            raise InputError(f"{source} is not valid YAML: {reason}.") from None
        mark = getattr(error, "problem_mark", None)
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or _CONTROL
        raise InputError(f"{source}{position}: not valid YAML: {problem[:200]}.") from None
    return loader


class _BoundsError(yaml.constructor.ConstructorError):
    """YAML that this module refuses; the problem quotes nothing of the text."""


def _error(problem: str, mark: Any) -> _BoundsError:
    return _BoundsError(None, None, problem, mark)


class _Loader(yaml.SafeLoader):
    """A loader of plain values; `lines` has the line number of each key by dotted key."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    value: Any = None

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lines: dict[str, int] = {}
        self._sizes: dict[int, int] = {}
        self._depth = self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, with limits on its depth and on the nodes that aliases stand for."""
        event: Any = self.peek_event()
        before = self._nodes
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _error(f"it is nested more than {_MAX_DEPTH} deep", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise _error("an anchor contains itself", event.start_mark)
            self._nodes += self._sizes[id(node)]
        else:
            self._nodes += 1
            self._sizes[id(node)] = self._nodes - before
        if self._nodes > _MAX_NODES:
            raise _error(f"it has more than {_MAX_NODES:,} values, with aliases expanded", event.start_mark)
        return node

    def get_single_data(self) -> Any:
        """Return the value of the only document."""
        node = self.get_single_node()
        return None if node is None else self._construct(node, "")

    def _construct(self, node: yaml.Node, prefix: str | None) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, prefix)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self._construct(item, None) for item in node.value]
        name = node.tag.removeprefix(_TAG)
        pattern = _SCALARS.get(name)
        if not isinstance(node, yaml.ScalarNode) or pattern is None and name != "str":
            raise _error("tags other than !!str, !!int, !!float, !!bool and !!null are not allowed", node.start_mark)
        if pattern and not pattern.fullmatch(node.value):
            raise _error(f"the value with the tag !!{name} is not one", node.start_mark)
        if _UNUSABLE.search(node.value):
            raise _error(_CONTROL, node.start_mark)
        return _CONVERTERS[name](node.value)

    def _mapping(self, node: yaml.MappingNode, prefix: str | None) -> dict[str, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key is a list or a mapping: keys must be text", key.start_mark)
            if key.value in names:
                problem = f"the key {key.value[:80]} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            names.add(key.value)
        self.flatten_mapping(node)
        result: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key is a list or a mapping: keys must be text", key.start_mark)
            if _UNUSABLE.search(key.value):
                raise _error(_CONTROL, key.start_mark)
            if prefix is not None:
                self.lines[prefix + key.value] = key.start_mark.line + 1
            result[key.value] = self._construct(value, None if prefix is None else f"{prefix}{key.value}.")
        return result


_SCALARS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"),
    "int": re.compile(rf"[-+]?(?:0|[1-9][0-9]{{0,{_MAX_DIGITS - 1}}})"),
    "float": re.compile(
        r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,4})?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}
_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() in ("yes", "true", "on"),
    "int": int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    "str": str,
}
for _name, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), None)
_Loader.add_implicit_resolver(_TAG + "merge", re.compile(r"<<\Z"), ["<"])
