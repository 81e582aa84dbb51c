"""Handing a sweep in at a cluster, which then runs it whether this machine stays or goes."""

import asyncio
import logging
import os
import secrets
import shlex
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

import reid_tune
from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, find_passphrase
from reid_tune.environment import set_variables
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.search_space.load import SweepConfig
from reid_tune.storage.object_store import is_url
from reid_tune.tracking.store import database, public

__all__ = ["submit"]

_SECONDS = 5
_NAME = "reid-tune sweep"  # in a job's metadata
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def submit(sweep: SweepConfig, address: str, options: Sequence[str], say: Callable[[str], None]) -> int:
    """Start a sweep as a Ray job, or find the one that runs, and follow its log to the end.

    This package, the sweep file and its spec travel with the job. Data, weights and storage must be on the cluster's
    nodes; the key is in a file of theirs.

    Args:
        address: Of the dashboard, `http://HOST:8265`.
        options: Of the command `sweep` there.
        say: Takes what the job prints, as it comes.

    Returns:
        The exit status of the sweep.

    Raises:
        InputError: nobody answers there, the token is refused, or the sweep names what only this machine has.
        InfrastructureError: the connection broke; the job goes on.
    """
    _require_portable(sweep)
    with _broken(f"--submit {address}: the dashboard does not answer as it should"):
        client = _client(address)
        job = _running(client, sweep, options) or _start(client, sweep, options)
    follow = f"ray job logs {job} --follow --address {address}"
    say(f"job {job}; it goes on without this terminal, see it again with: {follow}\n")
    with _broken(f"--submit {address}: the job goes on, see it with: {follow}"):
        asyncio.run(_follow(client, job, say))
        found = client.get_job_info(job)
    if found.status not in _ENDED:
        raise InfrastructureError(f"--submit {address}: the log ended; the job goes on, see: {follow}")
    if found.status == "STOPPED":
        return 130
    if found.status == "SUCCEEDED":
        return 0
    if found.driver_exit_code is None:  # It did not come to begin, and its log is empty.
        say(f"{found.message}\n")
    return found.driver_exit_code or InfrastructureError.status


def _require_portable(sweep: SweepConfig) -> None:
    if is_url(sweep.file.storage) and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError(
            f"{sweep.source}: storage = {sweep.file.storage!r}: with --submit name the MLflow server in "
            "MLFLOW_TRACKING_URI; a database cannot be in a bucket."
        )
    if not is_url(sweep.file.storage) and not Path(sweep.file.storage).is_absolute():
        raise InputError(
            f"{sweep.source}: storage = {sweep.file.storage!r}: with --submit give the absolute path of a folder that "
            "all nodes mount, or s3://BUCKET/PREFIX."
        )
    if (path := database(store := os.environ.get("MLFLOW_TRACKING_URI", ""))) and not store.endswith(f"//{path}"):
        raise InputError(f"MLFLOW_TRACKING_URI = {store}: with --submit give a server, or a path that begins with /.")
    if find_passphrase(sweep.experiment) is not None and not os.environ.get(KEY_FILE_VARIABLE):
        raise InputError(
            "with --submit the encryption key must be in a file that every node has: take it out of the spec and the "
            f"environment, and name the file in {KEY_FILE_VARIABLE}."
        )


def _client(address: str) -> Any:
    """A client of the dashboard at an address."""
    place = urlsplit(address)
    if place.scheme not in ("http", "https") or not place.hostname or not place.port:
        raise InputError(f"--submit {address}: give the dashboard's address, such as http://HOST:8265.")
    try:
        socket.create_connection((place.hostname, place.port), _SECONDS).close()
    except OSError as error:
        raise InputError(
            f"--submit {address}: no dashboard answers there ({error.strerror or error}): check the address, and that "
            "the port is forwarded from the head."
        ) from None
    # Ray would ask its own variables first.
    set_variables({"RAY_AUTH_MODE": "token", "RAY_API_SERVER_ADDRESS": address})
    logging.getLogger("ray").setLevel(logging.WARNING)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        client.list_jobs()
    except AuthenticationError:
        raise InputError(
            f"--submit {address}: the cluster refuses this machine's token, or it has none: copy ~/.ray/auth_token "
            "from the head, or give the token in RAY_AUTH_TOKEN."
        ) from None
    return client


@contextmanager
def _broken(what: str) -> Iterator[None]:
    """Turn a broken connection within the block into one sentence."""
    import aiohttp
    from ray.exceptions import RayError

    try:
        yield
    except (RuntimeError, OSError, aiohttp.ClientError, RayError) as error:
        raise InfrastructureError(f"{what} ({' '.join(str(error).split())[:200]})") from None


def _about(sweep: SweepConfig, options: Sequence[str]) -> dict[str, str]:
    """What a job's metadata say of its sweep."""
    return {_NAME: sweep.file.name, "storage": sweep.file.storage, "options": shlex.join(options)}


def _running(client: Any, sweep: SweepConfig, options: Sequence[str]) -> str | None:
    """The job that runs this sweep already.

    Raises:
        InputError: it does so with other options.
    """
    mine = _about(sweep, options)
    for job in client.list_jobs():
        theirs = job.metadata or {}
        if job.status in _ENDED or "--dry-run" in theirs.get("options", "") or "--dry-run" in options:
            continue
        if all(theirs.get(name) == mine[name] for name in (_NAME, "storage")):
            if theirs["options"] != mine["options"]:
                raise InputError(
                    f"the job {job.submission_id} runs this sweep with {theirs['options']}: give the same, or end it "
                    f"with 'ray job stop {job.submission_id}'."
                )
            return str(job.submission_id)
    return None


def _start(client: Any, sweep: SweepConfig, options: Sequence[str]) -> str:
    # The job's own folder goes with the job, so the default store lies beside the sweep.
    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{sweep.file.storage}/mlflow.db"
    variables = {"MLFLOW_TRACKING_URI": public(store)}
    if file := os.environ.get(KEY_FILE_VARIABLE):
        variables[KEY_FILE_VARIABLE] = file
    with _package(sweep) as folder:
        return str(
            client.submit_job(
                entrypoint=shlex.join(
                    ["python", "-m", "reid_tune", "sweep", "sweep.yaml", "--address", "auto", *options]
                ),
                submission_id=f"reid-tune-{sweep.file.name}-{secrets.token_hex(3)}",
                metadata=_about(sweep, options),
                runtime_env={"working_dir": str(folder), "env_vars": variables},
            )
        )


@contextmanager
def _package(sweep: SweepConfig) -> Iterator[Path]:
    """A folder with this package, the sweep file and its spec, overrides applied."""
    with tempfile.TemporaryDirectory(prefix="reid-tune-") as temporary:
        folder = Path(temporary)
        source = Path(reid_tune.__file__).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        spec = sweep.experiment.model_dump(mode="json", exclude={"encryption_key"})
        file = sweep.file.model_dump(mode="json") | {"spec": "spec.yaml"}
        for name, content in (("spec.yaml", spec), ("sweep.yaml", file)):
            (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
        yield folder


async def _follow(client: Any, job: str, say: Callable[[str], None]) -> None:
    async for text in client.tail_job_logs(job):
        say(text)
