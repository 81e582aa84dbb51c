"""Servers that speak S3, over HTTP: moto's in this process's memory, and s3rver as a separate process with a folder."""

import logging
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from reid_tune.environment import temporary_variables

from .mlflow_servers import answers, free_port
from .second_servers import S3RVER

__all__ = ["BUCKET", "S3Process", "s3_process", "s3_server"]

BUCKET = "reid-tune-test"
_PATIENCE = 60  # seconds


@contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """Run moto's server with an empty bucket during the block; its address is in the environment of this process.

    Yields:
        Environment variables for clients.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    try:
        environment = _environment("http://{}:{}".format(*server.get_host_and_port()), "someone", "secret")
        with temporary_variables(environment):
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            yield environment
    finally:
        server.stop()


class S3Process:
    """An s3rver that can be killed and started again with the same objects and address.

    Attributes:
        environment: Environment variables for clients.
        port: Its port on 127.0.0.1.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self.environment = _environment(f"http://127.0.0.1:{self.port}", "S3RVER", "S3RVER")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server; it answers afterwards."""
        command = ["node", str(S3RVER), "--silent", "--no-vhost-buckets", "--directory", str(self._folder)]
        command += ["--address", "127.0.0.1", "--port", str(self.port), "--configure-bucket", BUCKET]
        log = self._folder / ".log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        end = time.monotonic() + _PATIENCE
        while not answers(self.port):
            assert self._process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP to hang, SIGCONT to continue."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the server at once; its objects stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def s3_process(folder: Path) -> Iterator[S3Process]:
    """Run s3rver with an empty bucket during the block; its address is in the environment of this process."""
    with ExitStack() as stack:
        server = S3Process(folder)
        stack.callback(server.kill)
        server.start()
        stack.enter_context(temporary_variables(server.environment))
        yield server


def _environment(address: str, key: str, secret: str) -> dict[str, str]:
    credentials = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    return {"AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1"} | credentials
