"""An end in words where the cluster is gone: Ray itself would end the process after a minute, without any."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reid_tune.errors import InfrastructureError
from reid_tune.journal.store import resume_command

__all__ = ["exit_when_cluster_is_lost"]

EVERY, SILENCE = 5.0, 40.0  # seconds


@contextmanager
def exit_when_cluster_is_lost(address: str) -> Iterator[None]:
    """End this process with status 3 when nobody has answered at `HOST:PORT` for some time within the block.

    Nothing is lost by that: the log is on disk, and Ray ends the runs.
    """
    over = threading.Event()
    threading.Thread(target=_watch, args=(address, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(address: str, over: threading.Event) -> None:
    silent = 0.0
    while not over.wait(EVERY):
        silent = 0.0 if _answers(address) else silent + EVERY
        if silent >= SILENCE:
            line = f"reid-tune: the Ray cluster at {address} is gone; nothing finished is lost, go on with: "
            print(line + resume_command(), file=sys.stderr, flush=True)
            os._exit(InfrastructureError.status)  # the main thread may wait inside Ray for ever


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), EVERY).close()
    except OSError:
        return False
    return True
