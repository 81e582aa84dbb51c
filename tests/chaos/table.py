"""The table of what the chaos tests tried and lost, printed after the tests; works with xdist too."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

Tried = Callable[..., AbstractContextManager[None]]
_PROPERTY = "chaos"
_SEPARATOR = " | "


@pytest.fixture
def tried(record_property: Callable[[str, Any], None]) -> Tried:
    """A block in which disturbances of some kinds are tried; what raises an error in it is lost.

    `with tried("driver killed", "worker killed"):`
    """

    @contextmanager
    def block(*kinds: str) -> Iterator[None]:
        result = "lost"
        try:
            yield
            result = "survived"
        except pytest.skip.Exception:
            result = "skipped"
            raise
        finally:
            for kind in kinds:
                record_property(_PROPERTY, f"{kind}{_SEPARATOR}{result}")

    return block


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print `kind | tried | lost`."""
    counts, kinds = Counter[tuple[str, str]](), dict[str, None]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") != "call":
                continue
            for name, value in report.user_properties:
                if name == _PROPERTY:
                    kind, _, result = str(value).rpartition(_SEPARATOR)
                    counts[kind, result] += 1
                    kinds[kind] = None
    if not kinds:
        return
    terminalreporter.section("chaos")
    width = max(map(len, kinds))
    terminalreporter.line(f"{'kind':{width}} | tried | lost")
    for kind in sorted(kinds):
        survived, lost = counts[kind, "survived"], counts[kind, "lost"]
        terminalreporter.line(f"{kind:{width}} | {survived + lost:5} | {lost:4}")
