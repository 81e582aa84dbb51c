"""Machines of a cluster on this one: each a network namespace with an address of its own, on one bridge."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

__all__ = ["Machines", "permitted"]

RAY = str(Path(sys.executable).with_name("ray"))


def permitted() -> str:
    """Why there can be no machines here; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces are made by root alone"
    if shutil.which("ip") is None:
        return "there is no ip (package iproute2)"
    name = f"rt{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Machines:
    """Machines by number, with the addresses 10.77.0.NUMBER; number 1 is the head, and holds no runs.

    Args:
        folder: Of Ray's own files and logs; a short path, as sockets lie in it.
        dashboard: Whether the head has one, at port 8265 of its loopback.
    """

    def __init__(self, folder: Path, dashboard: bool = False) -> None:
        self.folder = folder
        self.dashboard = dashboard
        # The kernel takes a namespace's links away some time after it was deleted: each machine's names are new.
        self.tags: dict[int, str] = {}
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.bridge = f"br{secrets.token_hex(3)}"

    def __enter__(self) -> Self:
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("link", "set", self.bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self.tags):
            self.remove(number)
        _ip("link", "del", self.bridge)

    def reach(self) -> str:
        """Be among the machines; the address that this process has for them."""
        _ip("addr", "add", f"{self.address(254)}/24", "dev", self.bridge)
        return self.address(254)

    @staticmethod
    def address(number: int) -> str:
        """The address of a machine."""
        return f"10.77.0.{number}"

    def add(self, number: int, cpus: int = 1, hidden: Path | None = None, *more: str) -> None:
        """A new machine, with a Ray node on it; it sees another folder, an empty one, in the place of `hidden`.

        Args:
            more: Further arguments of `ray start`.
        """
        self.tags[number] = secrets.token_hex(3)
        space, outside = self._space(number), self._outside(number)
        _ip("netns", "add", space)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", outside, "master", self.bridge)
        _ip("link", "set", outside, "up")
        _ip("-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", space, "link", "set", link, "up")
        self.start(number, cpus, hidden, *more)

    def start(self, number: int, cpus: int = 1, hidden: Path | None = None, *more: str) -> None:
        """Start Ray on a machine, see `add`."""
        head = [
            "--head",
            "--port=6379",
            f"--include-dashboard={str(self.dashboard).lower()}",
            f"--temp-dir={self.folder}",
        ]
        role = head if number == 1 else [f"--address={self.address(1)}:6379"]
        command = [RAY, "start", *role, f"--node-ip-address={self.address(number)}", f"--num-cpus={cpus}"]
        command += ["--disable-usage-stats", *more]
        # `ip netns exec` gives a command its own mounts, too.
        hide = ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden)] if hidden else []
        self.run(number, *hide, *command)

    def run(self, number: int, *command: str) -> str:
        """What a command on a machine prints."""
        done = subprocess.run(
            self.on(number, *command), env=self.own(number), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def own(self, number: int) -> dict[str, str]:
        """A machine's environment, with a cache of its own."""
        return self.environment | {"REID_TUNE_CACHE_DIR": str(self.cache(number))}

    def cache(self, number: int) -> Path:
        """A machine's cache."""
        return self.folder / f"cache-{number}"

    def on(self, number: int, *command: str) -> list[str]:
        """A command as it is run on a machine."""
        return ["ip", "netns", "exec", self._space(number), *command]

    def kill(self, number: int) -> None:
        """Pull a machine's plug."""
        for pid in self._pids(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def leave(self, number: int) -> None:
        """A machine that says goodbye to its cluster before it is gone for good."""
        raylets = [pid for pid in self._pids(number) if Path(f"/proc/{pid}/comm").read_text() == "raylet\n"]
        for pid in raylets:
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 60
        while set(raylets) & set(self._pids(number)):
            assert time.monotonic() < end, "the raylet does not end"
            time.sleep(0.1)
        self.remove(number)

    def cut(self, number: int) -> None:
        """Pull a machine's network cable."""
        _ip("link", "set", self._outside(number), "down")

    def join(self, number: int) -> None:
        """Plug the cable in again."""
        _ip("link", "set", self._outside(number), "up")

    def remove(self, number: int) -> None:
        """A machine that is gone for good."""
        self.kill(number)
        _ip("netns", "del", self._space(number))
        del self.tags[number]

    def _pids(self, number: int) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self._space(number)).split()]

    def _space(self, number: int) -> str:
        return f"rt{self.tags[number]}-{number}"

    def _outside(self, number: int) -> str:
        return f"v{self.tags[number]}-{number}"


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
