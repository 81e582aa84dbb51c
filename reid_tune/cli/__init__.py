"""The command line: one short function for each command; parse, call, print.

Everything heavy is imported inside the command that needs it, so that help is instant.
"""

import signal
import sys

import typer

from reid_tune.cli import data, models, specs, sweeps
from reid_tune.cli.common import app
from reid_tune.errors import ReidTuneError

__all__ = ["app", "data", "main", "models", "specs", "sweeps"]


def main() -> None:
    """Run a command; a fault of the user's or of the surroundings is one sentence and its exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app()
    except ReidTuneError as error:
        typer.echo(f"reid-tune: {error}", err=True)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
