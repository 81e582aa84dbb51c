"""The archive for a bug report: versions, settings and the ends of logs, without secrets and without images."""

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from reid_tune.config.yaml_reader import read_yaml
from reid_tune.doctor.check import Check, report_checks
from reid_tune.environment import is_secret_name
from reid_tune.errors import InputError
from reid_tune.files import atomic_path
from reid_tune.journal.event_log import EVENTS
from reid_tune.storage.object_store import is_url
from reid_tune.tracking.store import redact

__all__ = ["Redaction", "write_bundle"]

_REMOVED = "REMOVED"
_MIN_SECRET = 4  # characters; shorter values of variables would remove parts of ordinary words
_LAST_EVENTS, _LAST_LINES, _MAX_LOGS = 300, 200, 20
_MAX_LINE = 20_000  # characters; the first event has the whole sweep
_AUTHORIZATION = re.compile(r"\b(Bearer|Basic)\s+[^\s\"',}]+", re.I)
_ASSIGNED = re.compile(
    r"((?:key|token|secret|password|passphrase|credential)\w*[\"']?\s*[=:]\s*[\"']?)[^\s\"',}&]+", re.I
)


class Redaction:
    """Removal of secrets from texts and settings.

    Args:
        environment: Environment variables; the values of those whose names look like secrets are removed everywhere.
        secrets: Further values to remove.
    """

    def __init__(self, environment: Mapping[str, str], secrets: Sequence[str] = ()) -> None:
        values = [value for name, value in environment.items() if is_secret_name(name)] + list(secrets)
        # The longest first: one may be a part of another. A file's lines may be quoted one by one.
        lines = {line.strip() for value in values for line in [value, *value.splitlines()]}
        self._secrets = sorted((line for line in lines if len(line) >= _MIN_SECRET), key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a text without secrets and without passwords in addresses."""
        for secret in self._secrets:
            text = text.replace(secret, _REMOVED).replace(json.dumps(secret)[1:-1], _REMOVED)
        return "\n".join(self._line(line) for line in text.split("\n"))

    @staticmethod
    def _line(line: str) -> str:
        line = _AUTHORIZATION.sub(rf"\1 {_REMOVED}", redact(line))
        return _ASSIGNED.sub(rf"\1{_REMOVED}", line)[:_MAX_LINE]

    def tree(self, content: Any, key: str = "") -> Any:
        """Return settings without the values of keys that look like secrets."""
        if isinstance(content, Mapping):
            return {self.text(str(name)): self.tree(value, str(name)) for name, value in content.items()}
        if isinstance(content, list):
            return [self.tree(value, key) for value in content]
        if is_secret_name(key.rpartition(".")[2]) and content is not None:
            return _REMOVED
        return self.text(content) if isinstance(content, str) else content


def write_bundle(path: Path, checks: Sequence[Check], file: Path | None, environment: Mapping[str, str]) -> list[str]:
    """Write the archive, and return the names of the files in it.

    Args:
        path: File to write.
        checks: Results of the checks.
        file: Spec or search-space file, or None.
        environment: Environment variables, of which only the names are written.

    Raises:
        InputError: the archive cannot be written.
    """
    contents = {
        "checks.json": json.dumps(report_checks(checks), indent=2),
        "packages.txt": "\n".join(sorted(f"{item.name} {item.version}" for item in metadata.distributions())),
        "environment.txt": "\n".join(sorted(environment)),
    }
    secrets = list[str]()
    if file is not None:
        trees = dict(_settings(file))
        secrets = [secret for tree in trees.values() for secret in _secrets_of(tree)]
        redaction = Redaction(environment, secrets)
        contents |= {
            name: yaml.safe_dump(redaction.tree(tree), sort_keys=False, allow_unicode=True)
            for name, tree in trees.items()
        }
        contents |= dict(_logs(file, trees))
    redaction = Redaction(environment, secrets)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in contents.items():
            archive.writestr(name, redaction.text(text) + "\n")
    return list(contents)


def _settings(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the names and contents of a file and of the spec that it names, as far as they can be read."""
    name, path = "file.yaml", file
    try:
        yield name, (tree := read_yaml(path))
        if isinstance(tree.get("spec"), str):
            name, path = "spec.yaml", file.parent / tree["spec"]
            yield name, read_yaml(path)
    except InputError as error:
        yield f"{name}.error", {"error": str(error)}


def _secrets_of(tree: Any, key: str = "") -> Iterator[str]:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _secrets_of(value, str(name))
    elif isinstance(tree, list):
        for value in tree:
            yield from _secrets_of(value, key)
    elif isinstance(tree, str) and is_secret_name(key.rpartition(".")[2]):
        yield tree


def _logs(file: Path, trees: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the ends of the event log and of the latest logs of runs, of a sweep on this machine."""
    tree = trees.get("file.yaml", {})
    storage, name = str(tree.get("storage", "runs")), str(tree.get("name", ""))
    results = Path(str(tree.get("results_dir", "results")))
    folder = Path(storage) / name if "space" in tree or "bundle" in tree else results
    if is_url(storage) or not folder.is_dir():
        return
    for log in sorted(folder.glob(f"**/{EVENTS}"))[:_MAX_LOGS]:
        yield f"logs/{log.relative_to(folder)}", _tail(log, _LAST_EVENTS)
    logs = [path for path in folder.glob("**/log.txt") if path.is_file()]
    for path in sorted(logs, key=os.path.getmtime)[-_MAX_LOGS:]:
        yield f"logs/{path.relative_to(folder)}", _tail(path, _LAST_LINES)


def _tail(path: Path, count: int) -> str:
    """Return the last lines of a log, and its first one."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        return str(error)
    kept = lines if len(lines) <= count else [lines[0], f"... {len(lines) - count:,} lines ...", *lines[1 - count :]]
    return "\n".join(kept)
