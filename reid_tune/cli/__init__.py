"""The command line.

This module has only what must happen before anything else is imported: the handlers of signals.
"""

import os
import signal

__all__ = ["END_SIGNALS", "STOPPED", "end_at_once", "main"]

STOPPED = "reid-tune: stopped\n"
# In addition to Ctrl-C: SIGTERM, by which job schedulers end a process, and SIGHUP, by which a closed terminal does.
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_at_once(*_: object) -> None:
    """Handle a signal while nothing has been begun that must be ended in order."""
    os.write(2, STOPPED.encode())
    os._exit(130)


def main() -> None:
    """Run a command; an error of the user or of the environment is printed as one sentence and sets the exit status."""
    for number in END_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # otherwise nohup or the shell has set it
            signal.signal(number, end_at_once)
    # The imports of the commands take longer than anything before.
    from reid_tune.cli.commands import run_command

    run_command()
