"""The genuine server takes repositories as they are written."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.deploy.preprocessing import ExportOptions
from reid_tune.deploy.triton.config import ServingOptions
from reid_tune.deploy.triton.repository import write_repository

from ...helpers.triton_models import write_model
from ...helpers.triton_server import Triton, needs_triton, triton_server
from ..conftest import make_crops

pytestmark = [pytest.mark.integration, needs_triton]

PATIENCE = 60
PREFERRED = ServingOptions(preferred_batch_sizes=(4, 16), delay=100_000)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, exported: Callable[[str], Any]) -> dict[str, Path]:
    """An exported network that takes normalised images, and one that takes pixels."""
    made, path, _ = exported("resnet18")
    pixels = tmp_path_factory.mktemp("pixels") / "pixels.onnx"
    export_onnx(*made, pixels, options=ExportOptions(layout="uint8_nhwc"))
    return {"floats": path, "pixels": pixels}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path]) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("served") / "models"
    for name, path in files.items():
        write_repository(path, folder, name=name, serving=PREFERRED)
    with triton_server(folder, options=("--log-verbose=1",)) as found:
        yield found


@pytest.fixture
def client(server: Triton) -> Iterator[Any]:
    with tritonclient.http.InferenceServerClient(server.http, concurrency=16) as found:
        yield found


def inputs(kind: str, batch: np.ndarray, library: Any = tritonclient.http) -> list[Any]:
    given = library.InferInput("input", batch.shape, kind)
    given.set_data_from_numpy(batch)
    return [given]


def batch_of(name: str, size: int) -> tuple[str, np.ndarray]:
    """Type and values of a request to a model."""
    crops = make_crops(size, 64, 32)
    return ("UINT8", crops) if name == "pixels" else ("FP32", crops.transpose(0, 3, 1, 2).astype(np.float32) / 255)


@pytest.mark.parametrize("name", ["floats", "pixels"])
def test_a_model_is_ready_and_configured_as_written(name: str, server: Triton, client: Any) -> None:
    assert client.is_model_ready(name, "1")
    config = client.get_model_config(name)
    shape, order = ([64, 32, 3], "FORMAT_NHWC") if name == "pixels" else ([3, 64, 32], "FORMAT_NCHW")
    assert (config["platform"], config["max_batch_size"]) == ("onnxruntime_onnx", 16)
    assert (config["input"][0]["dims"], config["input"][0]["format"]) == (shape, order)
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 16]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 100_000
    parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
    assert (parameters["height"], parameters["std"]) == ("64", "[0.226, 0.226, 0.226]")
    warmed = re.findall(rf"model '{name}' instance \S+ is running warmup sample '(batch \d+)'", server.log.read_text())
    assert warmed == ["batch 1", "batch 16"]


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("name", ["floats", "pixels"])
def test_answers_are_those_of_the_file(
    name: str, size: int, files: dict[str, Path], server: Triton, client: Any
) -> None:
    kind, batch = batch_of(name, size)
    (wanted,) = onnxruntime.InferenceSession(files[name]).run(["fc_pred"], {"input": batch})
    found = client.infer(name, inputs(kind, batch)).as_numpy("fc_pred")
    with tritonclient.grpc.InferenceServerClient(server.grpc) as other:
        by_grpc = other.infer(name, inputs(kind, batch, tritonclient.grpc)).as_numpy("fc_pred")
    assert wanted.shape == found.shape == (size, 256) and np.ptp(wanted) > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(by_grpc, wanted, rtol=0, atol=1e-5)


def test_requests_at_the_same_time_are_one_batch(client: Any) -> None:
    def executions() -> int:
        (statistics,) = client.get_inference_statistics("floats")["model_stats"]
        return int(statistics["execution_count"])

    kind, batch = batch_of("floats", 16)
    together = client.infer("floats", inputs(kind, batch)).as_numpy("fc_pred")
    before = executions()
    waiting = [client.async_infer("floats", inputs(kind, image[None])) for image in batch]
    single = np.concatenate([request.get_result().as_numpy("fc_pred") for request in waiting])
    np.testing.assert_allclose(single, together, rtol=0, atol=1e-5)
    assert executions() - before < len(batch)


@pytest.mark.parametrize(
    ("kind", "shape", "said"),
    [
        ("FP32", (17, 3, 64, 32), "batch-size must be <= 16"),
        ("FP32", (1, 3, 32, 64), r"unexpected shape for input 'input'"),
        ("UINT8", (1, 3, 64, 32), "data-type"),
    ],
)
def test_the_server_refuses_what_the_model_cannot_take(kind: str, shape: Any, said: str, client: Any) -> None:
    batch = np.zeros(shape, np.uint8 if kind == "UINT8" else np.float32)
    with pytest.raises(InferenceServerException, match=said):
        client.infer("floats", inputs(kind, batch))


def test_a_server_that_polls_takes_a_version_that_is_added(tmp_path: Path) -> None:
    first, second = (write_model(tmp_path / f"{number}.onnx") for number in (1, 2))
    folder = tmp_path / "models"
    write_repository(first, folder, name="people", serving=ServingOptions())
    options = ("--model-control-mode=poll", "--repository-poll-secs=1")
    with (
        triton_server(folder, options=options) as server,
        tritonclient.http.InferenceServerClient(server.http) as client,
    ):
        write_repository(second, folder, name="people", serving=ServingOptions(delay=7), version=2)
        deadline = time.monotonic() + PATIENCE
        while not client.is_model_ready("people", "2") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert client.get_model_config("people")["dynamic_batching"]["max_queue_delay_microseconds"] == 7
        assert {model["name"] for model in client.get_model_repository_index()} == {"people"}
        assert "failed to load" not in server.log.read_text()


def test_a_model_that_cannot_be_loaded_is_told_by_the_log(tmp_path: Path) -> None:
    write_repository(
        write_model(tmp_path / "a.onnx"), tmp_path / "models", name="people", serving=ServingOptions("tensorrt")
    )
    with (
        pytest.raises(RuntimeError, match="unable to find backend library for backend 'tensorrt'"),
        triton_server(tmp_path / "models"),
    ):
        pass
