"""The errors that end a command with one sentence instead of a traceback."""

__all__ = ["FailedRun", "InfrastructureError", "InputError", "ReidTuneError"]


class ReidTuneError(Exception):
    """A fault whose message is written for the user; `status` is the exit status of the command."""

    status = 1


class FailedRun(ReidTuneError):
    """A run that started and could not be finished, such as a non-finite loss."""

    status = 1


class InputError(ReidTuneError):
    """The user's input: the message names what was wrong, where (file, key, value) and what to do."""

    status = 2


class InfrastructureError(ReidTuneError):
    """Something around the product: a cluster, a server, a disk."""

    status = 3
