"""The client's commands against the genuine server."""

import http.server
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_tune.data.demo import draw_demo_data
from reid_tune.data.images import load
from reid_tune.deploy.form import Form
from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.triton import connection
from reid_tune.deploy.triton.config import Serving
from reid_tune.deploy.triton.repository import write_repository

from .server import Triton, needs_triton, triton_program, triton_server
from .tls import make_certificate, tls_proxy

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
    return model.embed(np.stack([load(path, model.height, model.width, model.interpolation) for path in paths]))


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
        (("-m", "others"), "has no model others, that is ready; it has floats, pixels."),
        (("-m", "floats", "-x", "7"), "has no model floats, version 7, that is ready"),
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


def test_a_server_that_dies_in_the_middle_leaves_no_half_of_a_file(
    client: Run, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_FIRST_WAIT", 0.01)
    (tmp_path / "results.json").write_text("of an earlier run")
    with triton_server(repository) as dying:
        infer, asked = connection.Connection.infer, iter(range(1000))

        def killing(self: Any, *arguments: Any) -> np.ndarray:
            if next(asked) == 3:
                dying.process.send_signal(signal.SIGKILL)
                dying.process.wait()
            return infer(self, *arguments)

        monkeypatch.setattr(connection.Connection, "infer", killing)
        status, _, err = client("-m", "floats", "-b", "2", "-u", dying.http)
    assert status == 3 and f"the Triton server http://{dying.http} does not answer" in err and "Traceback" not in err
    assert (tmp_path / "results.json").read_text() == "of an earlier run"


def test_https_is_tls_and_its_certificate_is_checked(client: Run, server: Triton, tmp_path: Path) -> None:
    right, wrong = make_certificate(tmp_path, "127.0.0.1"), make_certificate(tmp_path, "127.0.0.9")
    with tls_proxy(server.http, right) as place:
        status, _, err = client("-m", "floats", "-b", "8", "-i", "https", "-u", place, "--authority", str(right))
        assert status == 0 and len(results(tmp_path)) > 8, err
        status, _, err = client("-m", "floats", "-i", "https", "-u", place)
        assert status == 2 and "does not fit (self-signed certificate" in err and "--authority" in err
        status, _, err = client("-m", "floats", "-i", "http", "-u", place)
        assert status in (2, 3) and place in err and "Traceback" not in err
    with tls_proxy(server.http, wrong) as place:
        status, _, err = client("-m", "floats", "-i", "https", "-u", place, "--authority", str(wrong))
        assert status == 2 and "does not fit (IP address mismatch" in err
    status, _, err = client("-m", "floats", "-i", "https", "-u", server.http)
    assert status == 2 and f"{server.http}: server speaks plain HTTP; use -i http." in err


def test_a_server_of_another_kind_is_said_to_be(client: Run) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{other.server_port}"
        status, _, err = client("-m", "floats", "-u", place)
        other.shutdown()
    assert status == 2 and f"http://{place} is no Triton server" in err
    status, _, err = client("-m", "floats", "-u", place)
    assert status == 3 and f"nobody answers at http://{place}" in err
    assert client("-m", "floats", "-u", "localhost")[0] == 2


def test_end_to_end_on_a_server_of_its_own(command: Run, repository: Path, data: Path, tmp_path: Path) -> None:
    with triton_program(tmp_path) as program:
        folders = (data / "query", "--test_dir", data / "bounding_box_test", "--output_path", tmp_path / "e2e")
        options = ("-m", "floats", "--identities", "4", "--repository", repository, "--server", program)
        status, out, err = command("triton", "e2e", *folders, *options, "--format", "json")
        assert status == 0, err
        again = command("triton", "e2e", *folders, *options, "-i", "grpc", "--format", "json")
    found = json.loads(out)
    assert json.loads(again[1])["plain"]["mAP"] == pytest.approx(found["plain"]["mAP"])
    written = json.loads((tmp_path / "e2e" / "metrics.json").read_text())
    assert written["identities"] == 4 and written["plain"] == found["plain"] and 0 < found["re_ranked"]["mAP"] <= 1
    for picture in ("sampled_matches.png", "cmc_curve.png"):
        assert min(Image.open(tmp_path / "e2e" / picture).size) > 300
