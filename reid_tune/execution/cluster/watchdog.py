"""The exit of a command whose cluster is lost: Ray itself would end the process after a minute, without a message."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reid_tune.errors import InfrastructureError
from reid_tune.journal.sweep_lookup import resume_command

__all__ = ["exit_when_cluster_is_lost"]

INTERVAL, TIMEOUT = 5.0, 40.0  # seconds


@contextmanager
def exit_when_cluster_is_lost(address: str) -> Iterator[None]:
    """Exit with a message and status 3 when the cluster has not answered for `TIMEOUT` seconds within the block.

    Nothing finished is lost: the event log is on disk, and Ray ends the runs.

    Args:
        address: Address `HOST:PORT` of the cluster's head.
    """
    block_ended = threading.Event()
    threading.Thread(target=_watch, args=(address, block_ended), daemon=True).start()
    try:
        yield
    finally:
        block_ended.set()


def _watch(address: str, block_ended: threading.Event) -> None:
    silent_seconds = 0.0
    while not block_ended.wait(INTERVAL):
        silent_seconds = 0.0 if _answers(address) else silent_seconds + INTERVAL
        if silent_seconds >= TIMEOUT:
            line = f"reid-tune: the Ray cluster at {address} is unreachable; nothing finished is lost, continue with: "
            print(line + resume_command(), file=sys.stderr, flush=True)
            os._exit(InfrastructureError.status)  # the main thread may wait inside Ray forever


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), INTERVAL).close()
    except OSError:
        return False
    return True
