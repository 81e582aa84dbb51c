"""Environment variables: the only module that writes them, and the names of those that hold secrets.

Imports nothing heavy: the package itself imports it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["is_secret_name", "set_defaults", "set_variables", "temporary_variables"]


_SECRET_WORDS = ("CREDENTIAL", "KEY", "PASSPHRASE", "PASSWD", "PASSWORD", "SECRET", "TOKEN")


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name may hold a secret: the name contains one of the usual words."""
    return any(word in name.upper() for word in _SECRET_WORDS)


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
