"""Errors that end a command with one sentence instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "InfrastructureError",
    "InputError",
    "NonFiniteError",
    "OutOfMemoryError",
    "ReidTuneError",
    "RunFailedError",
    "StoppedError",
    "UnsupportedOperationError",
    "error_context",
]


class ReidTuneError(Exception):
    """An error whose message is written for the user; `status` is the exit status of the command."""

    status = 1


class RunFailedError(ReidTuneError):
    """A run that started and could not be finished."""

    status = 1


class NonFiniteError(RunFailedError):
    """A run whose loss, weights or features are NaN or infinite."""


class OutOfMemoryError(RunFailedError):
    """A run that needs more memory than its device or its machine has."""


class UnsupportedOperationError(RunFailedError):
    """A run that needs an operation which the device or the chosen kernels do not have."""


class InputError(ReidTuneError):
    """Wrong input: the message says what is wrong, where (file, key, value) and what to do."""

    status = 2


class InfrastructureError(ReidTuneError):
    """A problem of the environment: a cluster, a server, a disk."""

    status = 3


class StoppedError(ReidTuneError):
    """A command that Ctrl-C or another signal has stopped; the message says how to continue."""

    status = 130


@contextmanager
def error_context(subject: object) -> Iterator[None]:
    """Put a subject in front of the messages of input errors in the block, unless they name it."""
    try:
        yield
    except InputError as error:
        if str(subject) in str(error):
            raise
        raise InputError(f"{subject}: {error}") from None
