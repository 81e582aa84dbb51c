"""Discovery of a cluster before it is joined, so that a problem is reported at once and in one sentence."""

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
    """Return the address `IP:PORT` of the cluster that a user names.

    Args:
        address: `HOST:6379`, or `auto` for the cluster of which this machine is a node, or which RAY_ADDRESS names.

    Raises:
        InputError: no cluster answers within some seconds, the token is missing or wrong, the cluster does not use
            tokens, or it runs other versions of Ray or Python.
    """
    if "://" in address:
        raise InputError(f"--address {address}: give auto or HOST:6379; http://HOST:8265 is for --submit.")
    with ThreadPoolExecutor() as pool:
        query, stranger_query = (
            pool.submit(_query, address),
            pool.submit(_query, address, {"RAY_AUTH_TOKEN": "0" * 64}),
        )
        answer, stranger_answer = query.result(), stranger_query.result()
    if stranger_answer.get("address"):
        raise InputError(
            f"--address {address}: the cluster does not check tokens, so that anyone who reaches it may run commands "
            "on it: start it with RAY_AUTH_MODE=token."
        )
    if answer.get("refused") or answer.get("missing"):
        problem = "the cluster refuses this machine's token" if answer.get("refused") else "this machine has no token"
        raise InputError(
            f"--address {address}: {problem}: copy ~/.ray/auth_token from the head, or give the token in "
            "RAY_AUTH_TOKEN."
        )
    if not (answer.get("address") and stranger_answer.get("refused")):
        advice = "start one here with 'ray start --head'" if address == "auto" else "check host and port"
        raise InputError(f"--address {address}: no Ray cluster answers within {_SECONDS} s: {advice}.")
    _require_same_versions(address, answer)
    return str(answer["address"])


def _require_same_versions(address: str, answer: dict[str, str]) -> None:
    versions = {"ray": metadata.version("ray"), "python": platform.python_version()}
    if differences := [
        f"{name} {answer[name]} there, {version} here" for name, version in versions.items() if answer[name] != version
    ]:
        raise InputError(f"--address {address}: {', '.join(differences)}: install the same versions on all machines.")


def _query(address: str, variables: dict[str, str] | None = None) -> dict[str, str]:
    """Query a cluster, see `CLUSTER_QUERY`; empty where none answers, {"missing": "token"} without a token.

    Args:
        address: Address of the cluster, or `auto`.
        variables: Further environment variables.
    """
    # In a separate process: Ray's client may wait for minutes, or end the process that calls it.
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_BACKEND_LOG_LEVEL": "fatal"} | (variables or {})
    command = [sys.executable, "-c", CLUSTER_QUERY, address, str(_SECONDS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_LONGEST, env=environment)
    except subprocess.TimeoutExpired:
        return {}
    except subprocess.CalledProcessError as error:
        return {"missing": "token"} if "authentication token" in error.stderr else {}
    return dict(json.loads(done.stdout.splitlines()[-1]))
