"""All commands: one short function for each; parse, call, print.

Everything heavy is imported inside the command that needs it, so that help is instant.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import typer

from reid_tune.cli import (
    END_SIGNALS,
    STOPPED,
    data,
    doctor,
    end_at_once,
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
from reid_tune.errors import InfrastructureError, InputError, OutOfMemoryError, ReidTuneError
from reid_tune.files import display_text, is_disk_error, output_error
from reid_tune.training.memory import is_out_of_memory

__all__ = [
    "app",
    "data",
    "doctor",
    "metrics",
    "registry",
    "reports",
    "reproduce",
    "run_command",
    "spaces",
    "specs",
    "sweeps",
    "tasks",
    "triton",
    "triton_client",
]

_KEY_PREFIX = "encryption_key="
# Of errors in a process whose address space or number of threads is limited.
_LIMIT_TEXTS = ("failed to map segment", "can't start new thread")
_NOT_GIVEN = {"", "???", "~", "null", "Null", "NULL"}


def _move_key_to_environment() -> None:
    """Move an encryption key from the arguments to the environment, so that nothing records it with the arguments.

    An argument that gives no key, such as `encryption_key=null`, remains.

    Raises:
        InputError: The command joins a Ray cluster, which would store the command line of this process, or the key has
            a reference.
    """
    words = [word for word in sys.argv[1:] if word.startswith(_KEY_PREFIX)]
    keys = [word for word in words if word.removeprefix(_KEY_PREFIX).strip() not in _NOT_GIVEN]
    if not keys:
        return
    from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, KEY_VARIABLE

    if any("${" in word for word in keys):
        raise InputError(
            f"{_KEY_PREFIX}... on the command line has a reference (${{...}}), which is resolved only in a spec: write "
            f"it into the spec, or set {KEY_VARIABLE}."
        )
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


def run_command() -> None:
    """Run the command of `sys.argv` and end this process with its exit status."""
    status: int | str | None
    with _copies_of_outputs() as outputs:
        try:
            _handle_signals(signal.default_int_handler)
            _run_command()
        except KeyboardInterrupt:
            status, message = 130, STOPPED
        except ReidTuneError as error:
            status, message = error.status, f"reid-tune: {display_text(str(error))}\n"
        except SystemExit as end:
            status, message = end.code, STOPPED if end.code == 130 else ""
            if isinstance(end.__context__, BrokenPipeError):  # of which typer and rich make the status 1
                status, message = _report_closed_pipe(end.__context__, outputs)
        # Libraries and the interpreter may take long to end, and nobody waits for them.
        _handle_signals(_end_silently if status == 130 else end_at_once)
        try:
            typer.echo(message, err=True, nl=False)
            sys.stdout.flush()
        except BrokenPipeError as error:
            _report_closed_pipe(error, outputs)
        except OSError:  # a full disk: what stdout still buffers cannot be written at the end either
            os._exit(3)
    # `python -m` remembers a Ctrl-C that arrived while text was executed, as dataclasses do, and would end by SIGINT
    # instead of with the status. It forgets it when it executes other text.
    exec("")
    sys.exit(status)


@contextmanager
def _copies_of_outputs() -> Iterator[list[int]]:
    """Yield copies of the descriptors of stdout and stderr, which rich replaces when their reader has ended."""
    with ExitStack() as stack:
        copies = []
        for descriptor in (1, 2):
            with suppress(OSError):  # closed by the shell
                copies.append(os.dup(descriptor))
                stack.callback(os.close, copies[-1])
        yield copies


def _report_closed_pipe(error: BrokenPipeError, outputs: list[int]) -> tuple[int, str]:
    """Return status and message for a pipe whose reader has ended; if it is the output, end this process silently.

    SIGPIPE is ignored, as in every Python program: it would also end this process when a server closes its connection
    or a subprocess dies. A pipeline such as `reid-tune report | head` still ends as if by SIGPIPE.
    """
    poll = select.poll()
    for descriptor in outputs:
        poll.register(descriptor, 0)
    if poll.poll(0):  # nothing reads one of them
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    return 3, f"reid-tune: a process or server that was written to has ended ({error.strerror}): try again.\n"


def _end_silently(*_: object) -> None:
    os._exit(130)


def _handle_signals(handler: Callable[..., None]) -> None:
    for number in END_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _run_command() -> None:
    """Run the command; errors that are not of this package and say enough become errors that are."""
    try:
        _move_key_to_environment()
        app()
    except OSError as error:
        if not is_disk_error(error):
            raise
        message = output_error(f"cannot write {error.filename or 'the output'}", error)
        typer.echo(f"reid-tune: {message}", err=True)
        os._exit(3)  # what stdout still buffers cannot be written either
    except (ImportError, MemoryError, RuntimeError) as error:
        first_line = (str(error).splitlines() or ["allocation failed"])[0].rstrip(".")
        if any(text in first_line for text in _LIMIT_TEXTS):
            raise InfrastructureError(
                f"a limit of this process is reached ({first_line}): free memory, or raise its limits of memory and "
                "threads (ulimit -v, ulimit -u)."
            ) from None
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory: {first_line}. Free memory, or use another device.") from None
