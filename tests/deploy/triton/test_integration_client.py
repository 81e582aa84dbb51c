"""The client's commands against the genuine server."""

import contextlib
import http.server
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_tune.data.demo import draw_demo_data
from reid_tune.data.images import load
from reid_tune.data.records import read_folder
from reid_tune.deploy.form import Form
from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.triton import connection
from reid_tune.deploy.triton.config import Serving
from reid_tune.deploy.triton.repository import write_repository
from reid_tune.evaluation.features import feature_set
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import scores
from reid_tune.tasks.triton_e2e import sample_identities

from .proxy import make_certificate, proxy
from .server import Triton, needs_triton, triton_program, triton_server

pytestmark = [pytest.mark.integration, needs_triton]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "data"
    draw_demo_data(folder, identities=8, images=4)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, exported: Callable[[str], Any]) -> dict[str, OnnxModel]:
    """A network whose client normalises, and the same that normalises by itself."""
    made, path, _ = exported("resnet18")
    pixels = tmp_path_factory.mktemp("pixels") / "pixels.onnx"
    export_onnx(*made, pixels, form=Form(layout="uint8_nhwc"))
    return {"floats": OnnxModel(path), "pixels": OnnxModel(pixels)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, models: dict[str, OnnxModel]) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "models"
    for name, model in models.items():
        write_repository(model.path, folder, name=name, serving=Serving())
    write_repository(models["floats"].path, folder, name="small", serving=Serving(max_batch_size=4))
    write_repository(models["floats"].path, folder, name="wrong", serving=Serving())
    config = folder / "wrong" / "config.pbtxt"
    key = 'key: "dimension"\n  value {\n    string_value: '
    config.write_text(config.read_text().replace(f'{key}"256"', f'{key}"128"'))
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Triton]:
    with triton_server(repository) as found:
        yield found


@pytest.fixture
def client(command: Run, data: Path, tmp_path: Path) -> Run:
    """The command on the test folders of the data; its file is in `tmp_path`."""

    def run(*options: str, query: Path = data / "query") -> tuple[int, str, str]:
        folders = (query, "--test_dir", data / "bounding_box_test", "--output_path", tmp_path)
        return command("triton", "client", *folders, *options)

    return run


def results(folder: Path) -> dict[str, list[float]]:
    return {entry["img_path"]: entry["embedding"] for entry in json.loads((folder / "results.json").read_text())}


def expected(model: OnnxModel, paths: list[Path]) -> np.ndarray:
    return model.embed(
        np.stack([load(path, model.intake.height, model.intake.width, model.intake.interpolation) for path in paths])
    )


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
    assert status == 2 and "has changed floats from one version to another meanwhile" in err
    assert not list(tmp_path.iterdir())


def test_progress_is_shown_on_a_terminal(server: Triton, data: Path, tmp_path: Path) -> None:
    shown, terminal = pty.openpty()
    command = [sys.executable, "-m", "reid_tune", "triton", "client", data / "query", "-m", "floats", "-u", server.http]
    done = subprocess.run([*command, "--output_path", tmp_path], stderr=terminal, stdout=subprocess.PIPE, check=False)
    os.close(terminal)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(shown, 1 << 16):
            said += part
    os.close(shown)
    assert done.returncode == 0 and b"embedding" in said and b"100%" in said


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
        assert status == 2 and "does not fit (self-signed certificate" in err and "--authority" in err
        status, _, err = client("-m", "floats", "-i", "http", "-u", place)
        assert status == 2 and f"http://{place} is no Triton server over HTTP: use -i https" in err
    with proxy(server.http, wrong) as place:
        options = ("-m", "floats", "-i", "https", "-u", place, "--authority", str(wrong))
        status, _, err = client(*options)
        assert status == 2 and "does not fit (IP address mismatch" in err
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
    assert status == 2 and f"grpc://{server.http} is no Triton server over gRPC: use -i http" in err
    status, _, err = client("-m", "floats", "-i", "http", "-u", server.grpc)
    assert status == 2 and f"http://{server.grpc} is no Triton server over HTTP" in err
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{other.server_port}"
        status, _, err = client("-m", "floats", "-u", place)
        other.shutdown()
    assert status == 2 and f"http://{place} is no Triton server" in err
    status, _, err = client("-m", "floats", "-u", place)
    assert status == 3 and f"nobody answers at http://{place}" in err
    for wrong in ("localhost", f"http://{place}"):
        status, _, err = client("-m", "floats", "-u", wrong)
        assert status == 2 and f"-u {wrong}: give HOST:PORT" in err and "Traceback" not in err


@pytest.fixture
def end_to_end(command: Run, data: Path, tmp_path: Path) -> Run:
    """The command on the test folders of the data, four identities of them."""

    def run(*options: object, query: Path = data / "query") -> tuple[int, str, str]:
        folders = (query, "--test_dir", data / "bounding_box_test", "--output_path", tmp_path / "e2e")
        return command("triton", "e2e", *folders, "--identities", "4", "--format", "json", *options)

    return run


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_end_to_end_has_the_scores_of_the_deployed_file(
    protocol: str, end_to_end: Run, server: Triton, models: dict[str, OnnxModel], data: Path, tmp_path: Path
) -> None:
    status, out, err = end_to_end("-m", "small", "-i", protocol, "-u", getattr(server, protocol))
    assert status == 0, err
    found, written = json.loads(out), json.loads((tmp_path / "e2e" / "metrics.json").read_text())
    assert written["identities"] == 4 and {key: written[key] for key in found} == found
    folders = [read_folder(data / name).records for name in ("query", "bounding_box_test")]
    chosen = sample_identities(*folders, 4, seed=0)
    sides = [[record for record in records if record.identity in chosen] for records in folders]
    arrays = [
        array
        for side in sides
        for array in (
            expected(models["floats"], [record.path for record in side]),
            np.array([record.identity for record in side]),
            np.array([record.camera for record in side]),
        )
    ]
    kinds = dict(zip(("plain", "re_ranked"), scores(feature_set(*arrays), [None, ReRanking()]), strict=True))
    for kind, wanted in kinds.items():
        values = wanted.as_dict()
        assert {key: found[kind][key] for key in values} == pytest.approx(values, abs=1e-6)
    for picture in ("sampled_matches.png", "cmc_curve.png"):
        assert min(Image.open(tmp_path / "e2e" / picture).size) > 300


def test_end_to_end_on_a_server_of_its_own(end_to_end: Run, repository: Path, data: Path, tmp_path: Path) -> None:
    query = tmp_path / "query"
    shutil.copytree(data / "query", query)
    broken = min(path for path in query.iterdir() if not path.name.startswith(("-1", "0000")))
    broken.write_bytes(b"no image")
    with triton_program(tmp_path) as program:
        options = ("-m", "floats", "--identities", "8", "--repository", repository, "--server", program)
        status, out, err = end_to_end(*options, query=query)
        assert status == 0 and f"left out: cannot read the image {broken}" in err, err
        assert json.loads(out)["plain"]["queries"] > 4
        status, _, err = end_to_end("-m", "small", "-b", "5", *options[4:])
        assert status == 2 and "-b 5: the model takes 1 to 4 images in a request." in err


def test_a_place_that_cannot_be_written_is_said_before_the_work(
    end_to_end: Run, server: Triton, tmp_path: Path
) -> None:
    (tmp_path / "e2e").write_text("a file")
    status, _, err = end_to_end("-m", "floats", "-u", server.http)
    assert status == 2 and str(tmp_path / "e2e") in err and "Traceback" not in err
