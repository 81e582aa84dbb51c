"""The command line: one short function for each command; parse, call, print.

Everything heavy is imported inside the command that needs it, so that help is instant.
"""

import errno
import os
import signal
import sys

import typer

from reid_tune.cli import (
    data,
    metrics,
    registry,
    reports,
    reproduce,
    spaces,
    specs,
    sweeps,
    tasks,
    triton,
    triton_client,
)
from reid_tune.cli.common import app
from reid_tune.environment import set_variables
from reid_tune.errors import InputError, ReidTuneError
from reid_tune.training.memory import is_out_of_memory

__all__ = [
    "app",
    "data",
    "main",
    "metrics",
    "registry",
    "reports",
    "reproduce",
    "spaces",
    "specs",
    "sweeps",
    "tasks",
    "triton",
    "triton_client",
]

_KEY_PREFIX = "encryption_key="


def _move_key_to_environment() -> None:
    """Move an encryption key from the arguments to the environment, so that nothing records it with the arguments.

    Raises:
        InputError: The command joins a Ray cluster, which would store the command line of this process.
    """
    keys = [word for word in sys.argv[1:] if word.startswith(_KEY_PREFIX) and word != _KEY_PREFIX]
    if not keys:
        return
    from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, KEY_VARIABLE

    if any(word.partition("=")[0] == "--address" for word in sys.argv[1:]):
        raise InputError(
            f"--address with {_KEY_PREFIX}... on the command line would show the key in the cluster: name a file with "
            f"the key in {KEY_FILE_VARIABLE}."
        )
    typer.echo(
        f"warning: other users of this machine can read {_KEY_PREFIX}... in the list of processes: set {KEY_VARIABLE}, "
        f"name a file with the key in {KEY_FILE_VARIABLE}, or write the key into the spec.",
        err=True,
    )
    set_variables({KEY_VARIABLE: keys[-1].removeprefix(_KEY_PREFIX)})
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in keys]


def _terminate(*_: object) -> None:
    """Handle SIGTERM, by which job schedulers end a process, and SIGHUP, by which a closed terminal does, as Ctrl-C."""
    raise KeyboardInterrupt


def main() -> None:
    """Run a command; an error of the user or of the environment is printed as one sentence and sets the exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # otherwise nohup has set it
        signal.signal(signal.SIGHUP, _terminate)
    try:
        _move_key_to_environment()
        app()
    except ReidTuneError as error:
        typer.echo(f"reid-tune: {error}", err=True)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        typer.echo(f"reid-tune: {error.filename or 'the output'}: no space is left on its disk.", err=True)
        os._exit(3)  # what stdout still buffers cannot be written either
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first_line = (str(error).splitlines() or ["allocation failed"])[0].rstrip(".")
        typer.echo(f"reid-tune: out of memory: {first_line}. Free memory, or use another device.", err=True)
        sys.exit(1)
