"""A real local cluster: its sockets, its files, what becomes of secrets, and what happens when a part of it dies."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest

from reid_tune.config.encryption_key import KEY_VARIABLE
from reid_tune.execution.cluster.discovery import _query
from reid_tune.storage.temporary_folder import remove_leftovers

from ...helpers.leaks import command_lines, leaks

pytestmark = pytest.mark.integration

SECRETS = {
    name: f"{name.lower()}-is-nowhere-4711"
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
        "AZURE_CLIENT_SECRET",
        "HF_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
    )
}
# Runs a trial of Tune in a local session, prints digests of the secrets that it sees, and waits for a line.
DRIVER = f"""
import json, os, sys
from hashlib import sha256
import reid_tune
from reid_tune.execution.cluster.session import ray_session
from reid_tune.execution.ray_private import keep_secrets_out_of_trials

def trial(config):
    from ray import tune
    digests = {{name: sha256(os.environ[name].encode()).hexdigest() for name in {[*SECRETS, KEY_VARIABLE]!r}}}
    tune.report({{"seen": digests | {{"TMPDIR": os.environ["TMPDIR"]}}}})

with ray_session(None, os.environ["HF_TOKEN"][::-1]):
    import ray
    from ray import tune
    keep_secrets_out_of_trials()
    run = tune.RunConfig(storage_path=sys.argv[1], verbose=0)
    seen = tune.Tuner(tune.with_resources(trial, {{"CPU": 1}}), run_config=run).fit()[0].metrics["seen"]
    context = ray.get_runtime_context()
    print("ANSWER", json.dumps({{"seen": seen, "gcs": context.gcs_address}}), flush=True)
    sys.stdin.readline()
"""
KEY = SECRETS["HF_TOKEN"][::-1]


@dataclass
class Session:
    """A local cluster and its driver's process.

    Attributes:
        driver: The driver.
        temporary: Its folder for temporary files.
        answer: What it has printed.
    """

    driver: "subprocess.Popen[str]"
    temporary: Path
    answer: dict[str, Any]

    @property
    def folder(self) -> Path:
        return next(self.temporary.iterdir())


@contextlib.contextmanager
def local_session() -> Iterator[Session]:
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp", ignore_cleanup_errors=True) as root:
        os.chmod(root, 0o755)
        temporary, storage = Path(root, "t"), Path(root, "s")
        temporary.mkdir()
        environment = os.environ | SECRETS | {"TMPDIR": str(temporary)}
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(storage)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert driver.stdout
            line = next((line for line in driver.stdout if line.startswith("ANSWER ")), "")
            assert line, driver.stderr and driver.stderr.read()
            yield Session(driver, temporary, json.loads(line.removeprefix("ANSWER ")))
        finally:
            driver.kill()
            driver.communicate()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with local_session() as session:
        yield session


def program(process: psutil.Process) -> str:
    """Return the program of a process, or Ray's title of it; empty of one that has ended."""
    words = " ".join(process.cmdline()).split()
    return Path(words[0]).name if words else ""


def listening(session: Session) -> dict[str, set[tuple[str, int]]]:
    """Addresses on which a session listens, by the program or by Ray's title of the process."""
    found: dict[str, set[tuple[str, int]]] = {}
    driver = psutil.Process(session.driver.pid)
    for process in (driver, *driver.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            name = "driver" if process == driver else program(process)
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault(name, set()).add((connection.laddr.ip, connection.laddr.port))
    return found


def test_everything_listens_on_the_loopback_only_and_is_in_the_table(session: Session) -> None:
    addresses = listening(session)
    assert {"driver", "gcs_server", "raylet", "ray::RuntimeEnvAgent"} <= addresses.keys()
    assert {address for pairs in addresses.values() for address, _ in pairs} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    table = re.findall(r"^\| (.+?) \| .*127\.0\.0\.1.* \|$", Path("SECURITY.md").read_text(encoding="utf-8"), re.M)
    names = {name for cell in table for name in re.findall(r"`([^`]+)`", cell)}
    assert {re.sub("^ray::.*", "ray::worker", name) if name not in names else name for name in addresses} <= names


def test_no_port_answers_without_the_token(session: Session) -> None:
    assert session.answer["gcs"].startswith("127.")
    for port in {port for pairs in listening(session).values() for _, port in pairs}:
        for path in ("/metrics", "/", "/api/version"):
            # Either HTTP that refuses, or another protocol.
            with pytest.raises((OSError, HTTPException)) as caught:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
            assert getattr(caught.value, "code", 401) in (401, 403)
    # Ray would replace the address of the loopback by another one without the first variable.
    variables = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_TOKEN": "0" * 64}
    assert _query(session.answer["gcs"], variables) == {"refused": True}


def test_all_temporary_files_are_below_a_folder_of_the_user(session: Session) -> None:
    assert len(list(session.temporary.iterdir())) == 1, "of Ray and of the workers"
    assert session.folder.stat().st_mode & 0o777 == 0o700
    assert Path(session.answer["seen"]["TMPDIR"]).parent == session.folder


def test_secrets_reach_the_workers_and_are_written_nowhere(session: Session) -> None:
    expected = SECRETS | {KEY_VARIABLE: KEY}
    digests = {name: sha256(secret.encode()).hexdigest() for name, secret in expected.items()}
    assert {name: session.answer["seen"][name] for name in expected} == digests
    (token,) = {psutil.Process(session.driver.pid).children()[0].environ()["RAY_AUTH_TOKEN"]}
    titles = "\n".join(command_lines(session.driver.pid))
    for secret in (*SECRETS.values(), KEY, token):
        assert secret not in titles
        assert leaks(secret, session.temporary.parent) == []


@pytest.mark.parametrize(("name", "problem"), [("raylet", "Ray on this machine"), ("gcs_server", "the Ray cluster")])
def test_a_dead_part_of_ray_ends_the_driver_with_one_sentence(name: str, problem: str) -> None:
    with local_session() as session:
        children = psutil.Process(session.driver.pid).children()
        (victim,) = [child for child in children if program(child) == name]
        start = time.monotonic()
        victim.send_signal(signal.SIGKILL)
        status = session.driver.wait(60)
        assert status == 3 and time.monotonic() - start < 40
        output, errors = session.driver.communicate()
        lines = [line for line in errors.splitlines() if line.startswith("reid-tune: ")]
        assert len(lines) == 1 and problem in lines[0] and "nothing finished is lost, continue with" in lines[0]
        assert "raylet)" not in output + errors, "no pages of Ray's logs"
        assert remove_leftovers(session.temporary) and not list(session.temporary.iterdir()), "as the next start does"


START = """
import sys
import reid_tune
from reid_tune.errors import ReidTuneError
from reid_tune.execution.cluster.session import ray_session
try:
    with ray_session():
        print("started")
except ReidTuneError as error:
    print(error.status, error)
"""
EMPTY_DEV = """
mount -t tmpfs none {dev}
for name in null zero random urandom; do touch {dev}/$name; mount --bind /dev/$name {dev}/$name; done
mount --move {dev} /dev
"""


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (
            "mount -t tmpfs -o size=8m none {tmp}",
            "3 {tmp} has 7 MB free, and Ray needs 32: free space, or name another",
        ),
        (EMPTY_DEV, "3 Ray cannot be started on this machine ([Errno 2] No such file or directory: '/dev/shm')"),
        ("mount -t tmpfs -o size=1m none /dev/shm", "started"),
    ],
    ids=["full TMPDIR", "no /dev/shm", "small /dev/shm"],
)
def test_a_machine_without_space_is_one_sentence(mounts: str, expected: str) -> None:
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp") as root:
        names = {"tmp": f"{root}/t", "dev": f"{root}/d"}
        for folder in names.values():
            Path(folder).mkdir()
        script = f"set -e\n{mounts.format(**names)}\nexec {sys.executable} -c '{START}'"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            env=os.environ | {"TMPDIR": names["tmp"]},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if "unshare" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"no file system can be mounted here: {done.stderr}")
        assert done.stdout.startswith(expected.format(**names)), done.stderr
        assert len(done.stdout.splitlines()) == 1 and not list(Path(names["tmp"]).iterdir())
