"""The tiers of the tests: unit tests are quick and start no real part, the others have minutes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .unit_tier.sitecustomize import FLAG

MINUTES = pytest.mark.timeout(600)


def is_unit_test(item: pytest.Item) -> bool:
    return not any(item.get_closest_marker(name) for name in ("integration", "gpu"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of the other tiers more time than `timeout` in pyproject.toml, which is for unit tests."""
    for item in items:
        if not is_unit_test(item) and not item.get_closest_marker("timeout"):
            item.add_marker(MINUTES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Refuse real parts while a unit test and its fixtures run, in the processes that they start too."""
    if not is_unit_test(item):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FLAG, "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "unit_tier"), prepend=os.pathsep)
        return (yield)
