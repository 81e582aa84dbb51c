"""The exit of a command whose cluster is lost: Ray would wait forever, or end the process without a message."""

import contextlib
import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from reid_tune.errors import InfrastructureError
from reid_tune.journal.sweep_lookup import resume_command
from reid_tune.storage.temporary_folder import empty_folder

__all__ = ["Probe", "exit_when_cluster_is_lost", "exit_when_lost"]

INTERVAL = 5.0  # seconds between probes
_HEAD_SECONDS = 40.0  # a network may be interrupted
_LOCAL_SECONDS = 10.0  # Ray's processes on this machine, which nothing starts again
_ANSWER_SECONDS = 120.0  # a process may be suspended
_SILENCE = (errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN)


@dataclass(frozen=True)
class Probe:
    """A part of the cluster that must answer.

    Attributes:
        problem: What is wrong when it does not.
        answers: Whether it answers; returns within `INTERVAL` seconds.
        seconds: Seconds without an answer after which the cluster is lost.
    """

    problem: str
    answers: Callable[[], bool]
    seconds: float


@contextmanager
def exit_when_cluster_is_lost(folder: Path | None = None) -> Iterator[None]:
    """Watch the connected cluster within the block, see `exit_when_lost`: its head, and Ray on this machine.

    Args:
        folder: Folder of a local cluster, which is emptied after the cluster's processes, children of this one, have
            been killed; the next start removes it.
    """
    import ray

    context = ray.get_runtime_context()
    head, node_id = context.gcs_address, context.get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == node_id)
    raylet = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
    head_seconds = _LOCAL_SECONDS if head.startswith("127.") else _HEAD_SECONDS

    def is_node_alive() -> bool:
        return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())

    with _Background(is_node_alive) as node_state:
        probes = (
            Probe(f"the Ray cluster at {head} is unreachable", lambda: _accepts(head), head_seconds),
            Probe(f"the Ray cluster at {head} does not answer", node_state.has_answered, _ANSWER_SECONDS),
            Probe(f"Ray on this machine ({raylet}) has ended", lambda: _accepts(raylet), _LOCAL_SECONDS),
            Probe(f"Ray on this machine ({raylet}) counts as lost", node_state.last_answer, _LOCAL_SECONDS),
        )
        with exit_when_lost(probes, folder):
            yield


@contextmanager
def exit_when_lost(probes: Sequence[Probe], folder: Path | None = None) -> Iterator[None]:
    """Exit with a message and status 3 when a part of the cluster does not answer for too long within the block.

    Nothing finished is lost: the event log is on disk, and Ray ends the runs.

    Args:
        probes: Parts of the cluster.
        folder: Folder of a local cluster, which is emptied after the cluster's processes, children of this one, have
            been killed; the next start removes it.
    """
    block_ended = threading.Event()
    threading.Thread(target=_watch, args=(probes, folder, block_ended), daemon=True).start()
    try:
        yield
    finally:
        block_ended.set()


def _watch(probes: Sequence[Probe], folder: Path | None, block_ended: threading.Event) -> None:
    # Counted, not measured: this process may have been suspended for longer.
    silent_seconds = [0.0] * len(probes)
    while not block_ended.wait(INTERVAL):
        for index, probe in enumerate(probes):
            silent_seconds[index] = 0.0 if probe.answers() else silent_seconds[index] + INTERVAL
            if silent_seconds[index] >= probe.seconds and not block_ended.is_set():
                line = f"reid-tune: {probe.problem}; nothing finished is lost, continue with: {resume_command()}"
                print(line, file=sys.stderr, flush=True)
                if folder:
                    _kill_children()  # Otherwise they write into the folder.
                    empty_folder(folder)
                os._exit(InfrastructureError.status)  # the main thread may wait inside Ray forever


def _kill_children() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), INTERVAL).close()
    except OSError as error:
        # Any other error is one of this process, for example too many open files.
        return not (isinstance(error, TimeoutError) or error.errno in _SILENCE)
    return True


class _Background:
    """Asks a question repeatedly in a thread, as the answer may never come; a context manager."""

    def __init__(self, question: Callable[[], bool]) -> None:
        self._question = question
        self._has_ended, self._has_answered = threading.Event(), threading.Event()
        self._answer = True
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def has_answered(self) -> bool:
        """Whether there was an answer since the last call."""
        result = self._has_answered.is_set()
        self._has_answered.clear()
        return result

    def last_answer(self) -> bool:
        return self._answer

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join(INTERVAL)

    def _ask(self) -> None:
        while not self._has_ended.wait(INTERVAL / 2):
            with contextlib.suppress(Exception):  # An error is not an answer.
                self._answer = self._question()
                self._has_answered.set()
