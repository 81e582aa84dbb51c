"""One real server that wants a user and speaks TLS, and servers of all the wrong kinds."""

import datetime
import http.server
import ipaddress
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reid_tune.errors import InfrastructureError
from reid_tune.tracking.registry.resolve import resolve
from reid_tune.tracking.sender import Sender, send_all
from reid_tune.tracking.store import client, connection_error, redact

from ..helpers.mlflow_servers import Server, free_port, mlflow_server

PATIENCE = 120
USER, PASSWORD, TOKEN = "admin", "hush hush/@12", "a-secret-token"
QUOTED = "admin:hush%20hush%2F%4012@"
# What `mlflow server` is told to use: its own check, and one of a token as a proxy or a plugin would do it.
TOKENS = f'''
from flask import request
from mlflow.server.auth import authenticate_request_basic_auth, make_basic_auth_response
from werkzeug.datastructures import Authorization


def check():
    kind, _, word = request.headers.get("Authorization", "").partition(" ")
    if kind != "Bearer":
        return authenticate_request_basic_auth()
    user = Authorization("basic", {{"username": "{USER}", "password": ""}})
    return user if word == "{TOKEN}" else make_basic_auth_response()
'''
INI = """
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/users.db
admin_username = admin
authorization_function = tokens:check
auth_cache_ttl_seconds = 600
"""


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a self-signed certificate for 127.0.0.1."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem, bare = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, bare))
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    return folder / "key.pem", folder / "cert.pem"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Server]:
    (folder / "tokens.py").write_text(TOKENS)
    (folder / "auth.ini").write_text(INI.format(folder=folder))
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "any",
        "PYTHONPATH": str(folder),
    }
    options = ("--app-name", "basic-auth")
    with mlflow_server(folder, options=options, tls=certificate(folder), environment=environment) as server:
        yield server


@pytest.fixture
def trusted(folder: Path, guarded: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(folder / "cert.pem"))
    return guarded


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


@pytest.fixture
def log(tmp_path: Path, events: Callable, write: Callable) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path, artifact = tmp_path / name / "events.jsonl", tmp_path / "cmc.txt"
        path.parent.mkdir()
        artifact.write_text("curve")
        write(path, events(name, artifact))
        return path

    return make


def facts(uri: str, name: str) -> dict[str, Any]:
    """What a store knows of a sweep's runs, by run name."""
    connection = client(uri)
    experiment = connection.get_experiment_by_name(name)

    def values(run: Any) -> tuple[Any, ...]:
        tags = {key: value.replace(name, "") for key, value in run.data.tags.items() if "parentRunId" not in key}
        files = [file.path for file in connection.list_artifacts(run.info.run_id)]
        return run.data.params, run.data.metrics, tags, run.info.status, run.info.start_time, run.info.end_time, files

    runs = connection.search_runs([experiment.experiment_id])
    return {run.info.run_name.replace(name, "parent"): values(run) for run in runs}


@pytest.mark.integration
@pytest.mark.parametrize("way", ["variables", "address", "token"])
def test_a_whole_log_arrives_at_a_guarded_server(
    way: str, trusted: Server, store: str, log: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = trusted.uri.replace("://", f"://{QUOTED}") if way == "address" else trusted.uri
    if way == "variables":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    if way == "token":
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    assert connection_error(uri) is None
    sender = Sender(log(way), uri)
    assert sender.close(PATIENCE, PATIENCE), sender.last_error
    assert (sender.lag, sender.last_error) == (0, None)
    send_all(log(f"{way}-here"), store)
    sent = facts(uri, way)
    assert sent == facts(store, f"{way}-here")
    assert len(sent) == 4
    (run,) = client(uri).search_runs([client(uri).get_experiment_by_name(way).experiment_id], "tags.model = 'm/1'")
    artifact = resolve(f"runs:/{run.info.run_id}/cmc.txt", uri)
    assert artifact.read_text() == "curve"
    written = b"".join(path.read_bytes() for path in (tmp_path / way).iterdir())
    assert not [secret for secret in (PASSWORD, QUOTED, TOKEN) if secret.encode() in written]


@pytest.mark.integration
def test_models_are_registered_and_found(trusted: Server, user: None, tmp_path: Path) -> None:
    uri, connection = trusted.uri, client(trusted.uri)
    run = connection.create_run(connection.create_experiment("models"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "spec.yaml").write_text("a: 1\n")
    connection.log_artifacts(run.info.run_id, str(tmp_path / "model"), "model")
    connection.create_registered_model("guarded")
    connection.create_model_version("guarded", f"{run.info.artifact_uri}/model", run.info.run_id)
    connection.set_registered_model_alias("guarded", "champion", "1")
    assert (resolve("models:/guarded@champion", uri) / "spec.yaml").read_text() == "a: 1\n"


@pytest.mark.integration
@pytest.mark.parametrize("wrong", ["password", "token", "nothing"])
def test_a_wrong_user_is_one_line_that_names_the_variables(
    wrong: str, trusted: Server, log: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = trusted.uri
    if wrong == "password":
        uri = uri.replace("://", "://admin:wrong-word@")
    if wrong == "token":
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "wrong-word")
    path = log(f"wrong-{wrong}")
    with pytest.raises(InfrastructureError) as raised:
        send_all(path, uri)
    sender = Sender(path, uri)
    while sender.last_error is None:
        time.sleep(0.05)
    sender.close(0, 0)
    for message in (str(raised.value), sender.last_error, str(connection_error(uri))):
        assert "refuses this user: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or" in message
        assert "\n" not in message and "wrong-word" not in message
    assert sender.lag > 0


@pytest.mark.integration
def test_certificates(folder: Path, guarded: Server, user: None, monkeypatch: pytest.MonkeyPatch) -> None:
    message = str(connection_error(guarded.uri))
    assert f"the MLflow store {guarded.uri} has a certificate that is not trusted" in message
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in message and "MLFLOW_TRACKING_INSECURE_TLS=true" in message
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    assert connection_error(guarded.uri) is None
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(folder / "cert.pem"))
    assert "are both set" in str(connection_error(guarded.uri))
    monkeypatch.delenv("MLFLOW_TRACKING_INSECURE_TLS")
    assert connection_error(guarded.uri) is None
    assert connection_error(guarded.uri.replace("127.0.0.1", "localhost")) is not None, "a certificate of another name"
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/no/such/file")
    assert "/no/such/file" in str(connection_error(guarded.uri))


@pytest.mark.integration
def test_tls_where_none_is_expected(guarded: Server) -> None:
    assert str(connection_error(guarded.uri.replace("https", "http"))).endswith(
        "speaks TLS: write https:// in MLFLOW_TRACKING_URI."
    )


@pytest.mark.integration
def test_a_server_that_hangs_is_said_within_seconds(trusted: Server, user: None) -> None:
    trusted.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert "accepts connections but does not answer" in str(connection_error(trusted.uri))
        assert time.monotonic() - begun < 4.5
    finally:
        trusted.signal(signal.SIGCONT)
    while connection_error(trusted.uri):
        assert time.monotonic() - begun < PATIENCE


class Web(http.server.BaseHTTPRequestHandler):
    """Some other web server: what it does is the first part of the path."""

    def do_GET(self) -> None:
        status, content, location = {
            "json": (200, json.dumps({"mine": 1}), None),
            "page": (200, "<html>", None),
            "moved": (302, "", f"http://localhost:{self.server.server_address[1]}/page"),
            "broken": (503, "later", None),
            "forbidden": (403, "no", None),
        }.get(self.path.split("/")[1], (404, "no", None))
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "is not an MLflow server: check its port and path"),
        ("/json", "is not an MLflow server"),
        ("/page", "is not an MLflow server"),
        ("/moved", r"redirects to http://localhost:\d+: write that address"),
        ("/broken", r"fails with status 503"),
        ("/forbidden", "refuses this user: check MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_other_web_servers(path: str, message: str, web: str) -> None:
    with pytest.raises(AssertionError, match=f"the MLflow store {web}{path} {message}"):
        raise AssertionError(connection_error(web + path))


def test_plain_http_where_tls_is_expected(web: str) -> None:
    assert str(connection_error(web.replace("http", "https"))).endswith(
        "does not speak TLS: write http:// in MLFLOW_TRACKING_URI."
    )


def test_nobody_and_nothing_that_answers() -> None:
    uri = f"http://me:hush@127.0.0.1:{free_port()}"
    assert connection_error(uri) == (
        f"the MLflow store {redact(uri)} does not answer, nothing listens at this address: start it, or set "
        "MLFLOW_TRACKING_URI."
    )
    assert "the host nohost.invalid is unknown" in str(connection_error("http://nohost.invalid:5000"))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun = time.monotonic()
        message = connection_error(f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert "accepts connections but does not answer" in str(message) and time.monotonic() - begun < 4.5
