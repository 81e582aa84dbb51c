"""Submission of a sweep as a Ray job, which runs on without this machine."""

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
from reid_tune.execution.ray_private import job_client
from reid_tune.search_space.load import SweepConfig
from reid_tune.storage.object_store import is_url
from reid_tune.tracking.store import database, redact

__all__ = ["submit"]

_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 60.0  # for the dashboard's answer to a request
_SILENT_SECONDS = 60.0  # without a line of the log, after which the dashboard is asked for the job's state
_NAME = "reid-tune sweep"  # key of the sweep's name in a job's metadata
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def submit(sweep: SweepConfig, address: str, options: Sequence[str], write: Callable[[str], None]) -> int:
    """Start a sweep as a Ray job, or find the job that runs it already, and follow the job's log to its end.

    This package, the sweep file and its spec are uploaded with the job. Data, weights and storage must be on the
    cluster's nodes, and the encryption key in a file that they have.

    Args:
        sweep: The sweep.
        address: Address of the dashboard, `http://HOST:8265`.
        options: Options of the command `sweep` that the job runs.
        write: Writes the output of the job.

    Returns:
        The exit status of the sweep.

    Raises:
        InputError: no dashboard answers, the token is refused, or the sweep names files that only this machine has.
        InfrastructureError: the connection broke; the job continues.
    """
    _require_portable(sweep)
    with _connection_errors(f"--submit {address}: the dashboard does not answer as expected"):
        client = _connect(address)
        job = _find_job(client, sweep, options) or _start_job(client, sweep, options)
    command = f"ray job logs {job} --follow --address {address}"
    write(f"job {job} runs without this terminal; to see its log again: {command}\n")
    with _connection_errors(f"--submit {address}: the job continues, see its log with: {command}"):
        asyncio.run(_follow(client, job, write))
        info = client.get_job_info(job)
    if info.status not in _ENDED:
        raise InfrastructureError(f"--submit {address}: the log ended, but the job continues, see: {command}")
    if info.status == "STOPPED":
        return 130
    if info.status == "SUCCEEDED":
        return 0
    if info.driver_exit_code is None:  # it failed before its start, and its log is empty
        write(f"{info.message}\n")
    return info.driver_exit_code or InfrastructureError.status


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
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if (path := database(tracking_uri)) and not tracking_uri.endswith(f"//{path}"):
        raise InputError(
            f"MLFLOW_TRACKING_URI = {tracking_uri}: with --submit give a server, or a path that begins with /."
        )
    if find_passphrase(sweep.experiment) is not None and not os.environ.get(KEY_FILE_VARIABLE):
        raise InputError(
            "with --submit the encryption key must be in a file that every node has: remove it from the spec and the "
            f"environment, and name the file in {KEY_FILE_VARIABLE}."
        )


def _connect(address: str) -> Any:
    """Return a client of the dashboard at an address."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname or not url.port:
        raise InputError(f"--submit {address}: give the dashboard's address, such as http://HOST:8265.")
    try:
        socket.create_connection((url.hostname, url.port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"--submit {address}: no dashboard answers there ({error.strerror or error}): check the address, and that "
            "the port is forwarded from the head."
        ) from None
    # Ray's variables have precedence over the arguments of its client.
    set_variables({"RAY_AUTH_MODE": "token", "RAY_API_SERVER_ADDRESS": address})
    logging.getLogger("ray").setLevel(logging.WARNING)
    from ray.exceptions import AuthenticationError

    try:
        client = job_client(address, _ANSWER_SECONDS)
        client.list_jobs()
    except AuthenticationError:
        raise InputError(
            f"--submit {address}: the cluster refuses this machine's token, or it has none: copy ~/.ray/auth_token "
            "from the head, or give the token in RAY_AUTH_TOKEN."
        ) from None
    return client


@contextmanager
def _connection_errors(message: str) -> Iterator[None]:
    """Raise errors of the connection within the block as an InfrastructureError with a message."""
    import aiohttp
    from ray.exceptions import RayError

    try:
        yield
    except (RuntimeError, OSError, aiohttp.ClientError, RayError) as error:
        raise InfrastructureError(f"{message} ({' '.join(str(error).split())[:200]})") from None


def _job_metadata(sweep: SweepConfig, options: Sequence[str]) -> dict[str, str]:
    """Return the metadata by which the job of a sweep is found again."""
    return {_NAME: sweep.file.name, "storage": sweep.file.storage, "options": shlex.join(options)}


def _find_job(client: Any, sweep: SweepConfig, options: Sequence[str]) -> str | None:
    """Return the id of the job that runs this sweep already, None without one.

    Raises:
        InputError: a job runs it with other options.
    """
    expected = _job_metadata(sweep, options)
    for job in client.list_jobs():
        metadata = job.metadata or {}
        if job.status in _ENDED or "--dry-run" in metadata.get("options", "") or "--dry-run" in options:
            continue
        if all(metadata.get(name) == expected[name] for name in (_NAME, "storage")):
            if metadata["options"] != expected["options"]:
                raise InputError(
                    f"the job {job.submission_id} runs this sweep with {metadata['options']}: give the same options, "
                    f"or end it with 'ray job stop {job.submission_id}'."
                )
            return str(job.submission_id)
    return None


def _start_job(client: Any, sweep: SweepConfig, options: Sequence[str]) -> str:
    # The job's working folder is deleted with the job: the default database is next to the sweep instead.
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{sweep.file.storage}/mlflow.db"
    variables = {"MLFLOW_TRACKING_URI": redact(tracking_uri)}
    if file := os.environ.get(KEY_FILE_VARIABLE):
        variables[KEY_FILE_VARIABLE] = file
    with _working_folder(sweep) as folder:
        return str(
            client.submit_job(
                entrypoint=shlex.join(
                    ["python", "-m", "reid_tune", "sweep", "sweep.yaml", "--address", "auto", *options]
                ),
                submission_id=f"reid-tune-{sweep.file.name}-{secrets.token_hex(3)}",
                metadata=_job_metadata(sweep, options),
                runtime_env={"working_dir": str(folder), "env_vars": variables},
            )
        )


@contextmanager
def _working_folder(sweep: SweepConfig) -> Iterator[Path]:
    """Yield a folder with this package, the sweep file and its spec, overrides applied."""
    with tempfile.TemporaryDirectory(prefix="reid-tune-") as temporary:
        folder = Path(temporary)
        source = Path(reid_tune.__file__).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        spec = sweep.experiment.model_dump(mode="json", exclude={"encryption_key"})
        file = sweep.file.model_dump(mode="json") | {"spec": "spec.yaml"}
        for name, content in (("spec.yaml", spec), ("sweep.yaml", file)):
            (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
        yield folder


async def _follow(client: Any, job: str, write: Callable[[str], None]) -> None:
    """Write the log of a job until it ends; the connection may break without notice, and a job may print nothing."""
    texts = aiter(client.tail_job_logs(job))
    next_text = asyncio.ensure_future(anext(texts))
    while True:
        done, _ = await asyncio.wait({next_text}, timeout=_SILENT_SECONDS)
        if not done:
            info = await asyncio.to_thread(client.get_job_info, job)
            if info.status in _ENDED:
                return
            continue
        try:
            write(next_text.result())
        except StopAsyncIteration:
            return
        next_text = asyncio.ensure_future(anext(texts))
