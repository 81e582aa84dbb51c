"""Signs that clients have noticed the outage of a server on 127.0.0.1: tests wait for them, and not for a time."""

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["count_waiting", "hanging_up"]

_LISTENS = "0A"  # state of a socket in /proc/net/tcp


@contextmanager
def hanging_up(port: int) -> Iterator[Callable[[], int]]:
    """Listen where a killed server has listened, and hang up at once.

    Yields:
        A function that returns the number of connections so far.
    """
    connections = 0

    def hang_up() -> None:
        nonlocal connections
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return
            connections += 1

    with _listen(port) as listener:
        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            yield lambda: connections
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _listen(port: int) -> socket.socket:
    """Listen as soon as the last process of the killed server is gone."""
    while True:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            time.sleep(0.02)


def count_waiting(port: int) -> int:
    """Return the number of connections that a suspended server has not accepted."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, address, _, state, queues, *_ = line.split()
        if state == _LISTENS and address == f"0100007F:{port:04X}":
            return int(queues.partition(":")[2], 16)
    raise LookupError(f"nothing listens on port {port}")
