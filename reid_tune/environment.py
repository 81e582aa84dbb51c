"""Environment variables: the only module that writes them.

Imports nothing heavy: the package itself imports it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["set_defaults", "set_variables", "temporary_variables"]


def set_defaults(variables: Mapping[str, str]) -> None:
    """Set the variables that the user has not set."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def set_variables(variables: Mapping[str, str]) -> None:
    """Set variables for the remaining life of this process and for the processes that it starts."""
    os.environ.update(variables)


@contextmanager
def temporary_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the block; afterwards they have their former values, or are unset as before."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
