"""The client's commands against the genuine server."""

import contextlib
import http.server
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.triton import connection

from ...helpers.triton_proxy import make_certificate, proxy
from ...helpers.triton_server import Triton, needs_triton, triton_server
from .conftest import expected

pytestmark = [pytest.mark.integration, needs_triton]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def client(command: Run, data: Path, tmp_path: Path) -> Run:
    """The command on the test folders of the data; its file is in `tmp_path`."""

    def run(*options: str, query: Path = data / "query") -> tuple[int, str, str]:
        folders = (query, "--test_dir", data / "bounding_box_test", "--output_path", tmp_path)
        return command("triton", "client", *folders, *options)

    return run


def results(folder: Path) -> dict[str, list[float]]:
    return {entry["img_path"]: entry["embedding"] for entry in json.loads((folder / "results.json").read_text())}


@pytest.mark.parametrize("name", ["floats", "pixels"])
@pytest.mark.parametrize("way", [("http",), ("http", "--async"), ("grpc",), ("grpc", "--async")])
def test_the_file_has_every_image_as_the_deployed_file_embeds_it(
    name: str,
    way: tuple[str, ...],
    client: Run,
    server: Triton,
    models: dict[str, OnnxModel],
    data: Path,
    tmp_path: Path,
) -> None:
    protocol, *more = way
    (tmp_path / "results.json").write_text("of an earlier run")
    status, out, err = client("-m", name, "-x", "1", "-b", "8", "-i", protocol, "-u", getattr(server, protocol), *more)
    assert (status, out) == (0, f"{tmp_path / 'results.json'}\n"), err
    paths = [path for folder in ("query", "bounding_box_test") for path in sorted((data / folder).glob("*.jpg"))]
    found = results(tmp_path)
    assert list(found) == [str(path) for path in paths] and len(paths) % 8, "the last batch is a part of one"
    np.testing.assert_allclose(list(found.values()), expected(models[name], paths), rtol=0, atol=1e-5)


def test_what_the_server_would_refuse_is_one_sentence(client: Run, server: Triton, tmp_path: Path) -> None:
    for options, said in (
        (("-m", "floats", "-b", "17"), "-b 17: the model takes 1 to 16 images in a request"),
        (("-m", "others"), "has no model others, that is ready; it has floats, pixels, small, wrong."),
        (("-m", "floats", "-x", "7"), "has no model floats, version 7, that is ready"),
        (("-m", "wrong", "-b", "4"), "answers with [4, 256], or values that are not finite, in place of [4, 128]"),
    ):
        for protocol in ("http", "grpc"):
            status, _, err = client(*options, "-i", protocol, "-u", getattr(server, protocol))
            assert status == 2 and said in err and "Traceback" not in err, err
    status, _, err = client("-m", "floats", "-x", "1/../2", "-u", server.http)
    assert status == 2 and "-x 1/../2: give the number of a version, or leave it out." in err
    assert not (tmp_path / "results.json").exists()


def test_broken_images_are_named_and_counted(client: Run, server: Triton, data: Path, tmp_path: Path) -> None:
    query = tmp_path / "some"
    query.mkdir()
    for path in sorted((data / "query").glob("*.jpg"))[:3]:
        (query / path.name).write_bytes(path.read_bytes())
    (query / "0001_c1s1_000000_00.jpg").write_bytes(b"no image")
    status, _, err = client("-m", "floats", "-b", "2", "-u", server.http, query=query)
    assert status == 0 and "left out: cannot read the image" in err and "0001_c1s1_000000_00.jpg" in err
    assert "3 queries and" in err and ", 1 left out:" in err
    assert not any("000000_00" in path for path in results(tmp_path))


def test_a_server_that_is_away_for_a_moment_is_asked_again(
    client: Run, server: Triton, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_FIRST_WAIT", 0.01)
    # The first two connections are those of the probe and of the configuration.
    with proxy(server.http, dropped=(3, 4, 5)) as place:
        status, _, err = client("-m", "floats", "-b", "8", "-u", place)
    assert status == 0, err
    assert len(results(tmp_path)) == sum(
        len(list((data / folder).iterdir())) for folder in ("query", "bounding_box_test")
    )


def test_a_version_that_changes_in_the_middle_is_refused(
    client: Run, server: Triton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, versions = connection.Connection.infer, iter("1222222222")
    changed = lambda *arguments: (infer(*arguments)[0], next(versions))  # noqa: E731
    monkeypatch.setattr(connection.Connection, "infer", changed)
    status, _, err = client("-m", "floats", "-b", "8", "-u", server.http)
    assert status == 2 and "has changed floats from one version to another during the run" in err
    assert not list(tmp_path.iterdir())


def test_progress_is_shown_on_a_terminal(server: Triton, data: Path, tmp_path: Path) -> None:
    shown, terminal = pty.openpty()
    command = [sys.executable, "-m", "reid_tune", "triton", "client", data / "query", "-m", "floats", "-u", server.http]
    environment = {**os.environ, "TERM": "xterm"}
    done = subprocess.Popen(
        [*command, "--output_path", tmp_path], stderr=terminal, stdout=subprocess.DEVNULL, env=environment
    )
    os.close(terminal)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(shown, 1 << 16):
            said += part
    os.close(shown)
    assert done.wait() == 0 and b"embedding" in said and b"100%" in said


@pytest.mark.parametrize(("protocol", "more"), [("http", ("--async",)), ("grpc", ())])
def test_a_server_that_dies_in_the_middle_leaves_no_half_of_a_file(
    protocol: str,
    more: tuple[str, ...],
    client: Run,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_FIRST_WAIT", 0.01)
    (tmp_path / "results.json").write_text("of an earlier run")
    with triton_server(repository) as dying:
        infer, asked = connection.Connection.infer, iter(range(1000))

        def killing(self: Any, *arguments: Any) -> tuple[np.ndarray, str]:
            if next(asked) == 3:
                dying.process.send_signal(signal.SIGKILL)
                dying.process.wait()
            return infer(self, *arguments)

        monkeypatch.setattr(connection.Connection, "infer", killing)
        place = getattr(dying, protocol)
        status, _, err = client("-m", "floats", "-b", "2", "-i", protocol, "-u", place, *more)
    assert status == 3 and f"the Triton server {protocol}://{place} does not answer" in err and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text() == "of an earlier run"


def test_https_is_tls_and_its_certificate_is_checked(
    client: Run, server: Triton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = make_certificate(tmp_path, "127.0.0.1"), make_certificate(tmp_path, "127.0.0.9")
    with proxy(server.http, right) as place:
        status, _, err = client("-m", "floats", "-b", "8", "-i", "https", "-u", place, "--authority", str(right))
        assert status == 0 and len(results(tmp_path)) > 8, err
        status, _, err = client("-m", "floats", "-i", "https", "-u", place)
        assert status == 2 and "does not match (self-signed certificate" in err and "--authority" in err
        status, _, err = client("-m", "floats", "-i", "http", "-u", place)
        assert status == 2 and f"http://{place} is not a Triton server over HTTP: use -i https" in err
    with proxy(server.http, wrong) as place:
        options = ("-m", "floats", "-i", "https", "-u", place, "--authority", str(wrong))
        status, _, err = client(*options)
        assert status == 2 and "does not match (IP address mismatch" in err
        # Images travel over connections of another library, which must be as strict.
        monkeypatch.setattr("reid_tune.deploy.triton.client.require_triton", lambda _: None)
        monkeypatch.setattr(connection, "_FIRST_WAIT", 0.01)
        status, _, err = client(*options)
        assert status == 3 and "certificate verify failed: IP address mismatch" in err
    monkeypatch.undo()
    status, _, err = client("-m", "floats", "-i", "https", "-u", server.http)
    assert status == 2 and f"{server.http}: server speaks plain HTTP; use -i http." in err


def test_a_server_of_another_kind_is_said_to_be(client: Run, server: Triton) -> None:
    status, _, err = client("-m", "floats", "-i", "grpc", "-u", server.http)
    assert status == 2 and f"grpc://{server.http} is not a Triton server over gRPC: use -i http" in err
    status, _, err = client("-m", "floats", "-i", "http", "-u", server.grpc)
    assert status == 2 and f"http://{server.grpc} is not a Triton server over HTTP" in err
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{other.server_port}"
        status, _, err = client("-m", "floats", "-u", place)
        other.shutdown()
    assert status == 2 and f"http://{place} is not a Triton server" in err
    status, _, err = client("-m", "floats", "-u", place)
    assert status == 3 and f"no server answers at http://{place}" in err
    for wrong in ("localhost", f"http://{place}"):
        status, _, err = client("-m", "floats", "-u", wrong)
        assert status == 2 and f"-u {wrong}: give HOST:PORT" in err and "Traceback" not in err
