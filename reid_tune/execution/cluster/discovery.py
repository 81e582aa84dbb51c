"""Looking at a cluster before joining it, so that what is wrong is said at once and in a sentence."""

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

from reid_tune.errors import InputError
from reid_tune.execution.ray_private import CLUSTER_QUERY

__all__ = ["find_cluster"]

_SECONDS = 7  # for an answer; importing Ray may take longer where the machine is busy
_LONGEST = 60


def find_cluster(address: str) -> str:
    """The address `IP:PORT` of the cluster that a user means.

    Args:
        address: `HOST:6379`, or `auto` for the cluster of which this machine is a node, or which RAY_ADDRESS names.

    Raises:
        InputError: nobody answers within some seconds, the token is missing or wrong, the cluster has none, or runs
            other versions of Ray or Python.
    """
    if "://" in address:
        raise InputError(f"--address {address}: give auto or HOST:6379; http://HOST:8265 is for --submit.")
    with ThreadPoolExecutor() as pool:
        asked, stranger = pool.submit(_ask, address), pool.submit(_ask, address, {"RAY_AUTH_TOKEN": "0" * 64})
        found, other = asked.result(), stranger.result()
    if other.get("address"):
        raise InputError(
            f"--address {address}: the cluster knows no token, so whoever reaches it may run commands on it: start it "
            "with RAY_AUTH_MODE=token."
        )
    if found.get("refused") or found.get("missing"):
        why = "the cluster refuses this machine's token" if found.get("refused") else "this machine has no token"
        raise InputError(
            f"--address {address}: {why}: copy ~/.ray/auth_token from the head, or give the token in RAY_AUTH_TOKEN."
        )
    if not (found.get("address") and other.get("refused")):
        begin = "start one here with 'ray start --head'" if address == "auto" else "check host and port"
        raise InputError(f"--address {address}: no Ray cluster answers within {_SECONDS} s: {begin}.")
    own = {"ray": metadata.version("ray"), "python": platform.python_version()}
    if unlike := [
        f"{name} {found[name]} there, {version} here" for name, version in own.items() if found[name] != version
    ]:
        raise InputError(f"--address {address}: {', '.join(unlike)}: install the same versions on all machines.")
    return str(found["address"])


def _ask(address: str, more: dict[str, str] | None = None) -> dict[str, str]:
    """What the cluster says of itself to a process with more in its environment; nothing where there is none."""
    # In a process of its own: Ray's client may wait for minutes, or end the process that asks.
    quiet = os.environ | {"RAY_AUTH_MODE": "token", "RAY_BACKEND_LOG_LEVEL": "fatal"} | (more or {})
    command = [sys.executable, "-c", CLUSTER_QUERY, address, str(_SECONDS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_LONGEST, env=quiet)
    except subprocess.TimeoutExpired:
        return {}
    except subprocess.CalledProcessError as error:
        return {"missing": "token"} if "authentication token" in error.stderr else {}
    return dict(json.loads(done.stdout.splitlines()[-1]))
