"""Machines of a cluster on this machine: network namespaces with separate addresses, on one bridge."""

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

__all__ = ["Machines", "why_not_permitted"]

RAY = str(Path(sys.executable).with_name("ray"))


def why_not_permitted() -> str:
    """Return why machines cannot be made on this machine; empty where they can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if shutil.which("ip") is None:
        return "the program ip is missing (package iproute2)"
    name = f"rt{secrets.token_hex(3)}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if done.returncode:
        return f"a network namespace cannot be made: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Machines:
    """Machines by number, with the addresses 10.77.0.NUMBER; number 1 is the head, and holds no runs.

    Args:
        folder: Folder for Ray's own files and logs; a short path, as it contains sockets.
        dashboard: Whether the head has a dashboard, at port 8265 of its loopback.
    """

    def __init__(self, folder: Path, dashboard: bool = False) -> None:
        self.folder = folder
        self.dashboard = dashboard
        # The kernel removes a namespace's links some time after the namespace: each machine has new names.
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

    def add_host(self) -> str:
        """Connect this machine to the network of the machines, and return its address there."""
        _ip("addr", "add", f"{self.address(254)}/24", "dev", self.bridge)
        return self.address(254)

    @staticmethod
    def address(number: int) -> str:
        """Return the address of a machine."""
        return f"10.77.0.{number}"

    def add(self, number: int, cpus: int = 1, hidden: Path | None = None, *options: str) -> None:
        """Add a machine with a Ray node.

        Args:
            number: Number of the machine.
            cpus: CPUs of its Ray node.
            hidden: Folder in whose place the machine sees an empty one.
            options: Further options of `ray start`.
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
        self.start(number, cpus, hidden, *options)

    def start(self, number: int, cpus: int = 1, hidden: Path | None = None, *options: str) -> None:
        """Start Ray on a machine, see `add`."""
        head = [
            "--head",
            "--port=6379",
            f"--include-dashboard={str(self.dashboard).lower()}",
            f"--temp-dir={self.folder}",
        ]
        role = head if number == 1 else [f"--address={self.address(1)}:6379"]
        command = [RAY, "start", *role, f"--node-ip-address={self.address(number)}", f"--num-cpus={cpus}"]
        command += ["--disable-usage-stats", *options]
        # `ip netns exec` also gives a command separate mounts.
        hide = ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden)] if hidden else []
        self.run(number, *hide, *command)

    def run(self, number: int, *command: str) -> str:
        """Run a command on a machine, and return its output."""
        done = subprocess.run(
            self.command_on(number, *command), env=self.variables(number), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def variables(self, number: int) -> dict[str, str]:
        """Environment variables of a machine, which has a separate cache."""
        return self.environment | {"REID_TUNE_CACHE_DIR": str(self.cache(number))}

    def cache(self, number: int) -> Path:
        """Cache folder of a machine."""
        return self.folder / f"cache-{number}"

    def command_on(self, number: int, *command: str) -> list[str]:
        """Return the command line that runs a command on a machine."""
        return ["ip", "netns", "exec", self._space(number), *command]

    def kill(self, number: int) -> None:
        """Kill all processes of a machine, as when its power fails."""
        for pid in self._pids(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def leave(self, number: int) -> None:
        """Let a machine leave its cluster in an orderly way, and remove it."""
        raylets = [pid for pid in self._pids(number) if Path(f"/proc/{pid}/comm").read_text() == "raylet\n"]
        for pid in raylets:
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 60
        while set(raylets) & set(self._pids(number)):
            assert time.monotonic() < end, "the raylet does not end"
            time.sleep(0.1)
        self.remove(number)

    def disconnect(self, number: int) -> None:
        """Disconnect a machine from the network."""
        _ip("link", "set", self._outside(number), "down")

    def reconnect(self, number: int) -> None:
        """Connect a machine to the network again."""
        _ip("link", "set", self._outside(number), "up")

    def remove(self, number: int) -> None:
        """Kill a machine, and delete it."""
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
