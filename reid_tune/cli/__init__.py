"""The command line: one short function for each command; parse, call, print.

Everything heavy is imported inside the command that needs it, so that help is instant.
"""

import errno
import os
import signal
import sys

import typer

from reid_tune.cli import data, models, registry, spaces, specs, sweeps, triton, triton_client
from reid_tune.cli import inspect as views
from reid_tune.cli import metrics as features
from reid_tune.cli.common import app
from reid_tune.errors import ReidTuneError
from reid_tune.training.memory import is_out_of_memory

__all__ = [
    "app",
    "data",
    "features",
    "main",
    "models",
    "registry",
    "spaces",
    "specs",
    "sweeps",
    "triton",
    "triton_client",
    "views",
]


def _hide_key() -> None:
    """Start anew with an encryption key of the command line in the environment, where no list of processes has it."""
    given = [word for word in sys.argv[1:] if word.startswith("encryption_key=") and word != "encryption_key="]
    if given:
        from reid_tune.config.encryption_key import KEY_VARIABLE

        os.environ[KEY_VARIABLE] = given[-1].partition("=")[2]
        rest = [word for word in sys.argv[1:] if word not in given]
        os.execv(sys.executable, [sys.executable, "-P", "-m", "reid_tune", *rest])


def _terminate(*_: object) -> None:
    """SIGTERM is a job scheduler's way to say Ctrl-C, SIGHUP that of a terminal that is closed."""
    raise KeyboardInterrupt


def main() -> None:
    """Run a command; a fault of the user's or of the surroundings is one sentence and its exit status."""
    _hide_key()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else nohup
        signal.signal(signal.SIGHUP, _terminate)
    try:
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
        os._exit(3)  # what stdout still holds cannot be written either
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first_line = (str(error).splitlines() or ["Python found none"])[0].rstrip(".")
        typer.echo(f"reid-tune: out of memory: {first_line}. Free memory, or use another device.", err=True)
        sys.exit(1)
