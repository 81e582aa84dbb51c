"""Environment variables: the only module that writes them, and the names of those that hold secrets.

Imports nothing heavy: the package itself imports it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["compiler_cache", "is_secret_name", "set_defaults", "set_variables", "temporary_variables"]


_SECRET_WORDS = ("CREDENTIAL", "KEY", "PASSPHRASE", "PASSWD", "PASSWORD", "SECRET", "TOKEN")


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name may hold a secret: the name contains one of the usual words."""
    return any(word in name.upper() for word in _SECRET_WORDS) or name.upper().endswith(("_PAT", "_PWD"))


def compiler_cache() -> dict[str, str]:
    """Return the variable that names the folder of torch.compile's files, below the user's cache.

    By default PyTorch reads them, and runs what they hold, from a folder in the one for temporary files. All users
    know its name, and another user may create it first. Without a cache that can be written, nothing is returned.
    """
    cache = os.environ.get("REID_TUNE_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "reid-tune"
    )
    folder = parent = os.path.join(os.path.expanduser(cache), "compiled")
    while not os.path.exists(parent) and os.path.dirname(parent) != parent:
        parent = os.path.dirname(parent)
    is_usable = os.path.isabs(folder) and os.path.isdir(parent) and os.access(parent, os.W_OK)
    return {"TORCHINDUCTOR_CACHE_DIR": folder} if is_usable else {}


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
