import errno
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelInstanceGroup

from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.triton.config import ServingOptions, config_text, parse_config
from reid_tune.deploy.triton.repository import RepositoryModel, write_repository
from reid_tune.errors import InputError

from ...helpers.triton_models import METADATA, write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "winner.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "models"


DEFAULT = ServingOptions()


def write(model: Path, folder: Path, serving: ServingOptions = DEFAULT, **options: Any) -> RepositoryModel:
    return write_repository(model, folder, serving=serving, **{"name": "people", **options})


def config(folder: Path) -> Any:
    return text_format.Parse((folder / "people" / "config.pbtxt").read_text(), ModelConfig())


def tree(folder: Path) -> list[str]:
    """All files in a folder, and the names next to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) + sorted(
        path.name for path in folder.parent.iterdir()
    )


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_model_and_all_that_a_server_must_know(model: Path, folder: Path) -> None:
    written = write(model, folder, ServingOptions(preferred_batch_sizes=(4, 16), delay=500, instances=2))
    assert written == RepositoryModel(folder / "people" / "1", None)
    assert tree(folder) == ["people/1/model.onnx", "people/config.pbtxt", "models"]
    assert (written.version_folder / "model.onnx").read_bytes() == model.read_bytes()
    assert oct((folder / "people").stat().st_mode) == oct(folder.stat().st_mode)  # a server of another user reads it

    found = config(folder)
    assert (found.name, found.platform, found.max_batch_size) == ("people", "onnxruntime_onnx", 16)
    (given,), (wanted,), (group,) = found.input, found.output, found.instance_group
    assert (given.name, given.data_type, given.format) == ("input", DataType.TYPE_FP32, ModelInput.FORMAT_NCHW)
    assert list(given.dims) == [3, 8, 4]
    assert (wanted.name, wanted.data_type, list(wanted.dims)) == ("fc_pred", DataType.TYPE_FP32, [5])
    assert (group.kind, group.count) == (ModelInstanceGroup.KIND_AUTO, 2)
    batching = found.dynamic_batching
    assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([4, 16], 500)
    assert [warmup.batch_size for warmup in found.model_warmup] == [1, 16]
    for warmup in found.model_warmup:
        zeros = warmup.inputs["input"]
        assert (zeros.data_type, list(zeros.dims), zeros.zero_data) == (DataType.TYPE_FP32, [3, 8, 4], True)
    metadata = {key: value.string_value for key, value in found.parameters.items()}
    assert metadata == OnnxModel(model).metadata and metadata["threshold_squared_distance"] == "0.81"


def test_the_text_is_read_back_as_it_was_meant(model: Path, folder: Path) -> None:
    write(model, folder)
    path = folder / "people" / "config.pbtxt"
    assert config_text(parse_config(path)) == path.read_text() and parse_config(path) == config(folder)
    assert config(folder).HasField("dynamic_batching")  # empty, but there: the server makes batches


def test_pixels_are_an_input_of_bytes(tmp_path: Path, folder: Path) -> None:
    write(write_model(tmp_path / "bytes.onnx", "uint8_nhwc"), folder, ServingOptions(max_batch_size=1))
    (given,), (warmup,) = config(folder).input, config(folder).model_warmup
    assert (given.data_type, given.format) == (DataType.TYPE_UINT8, ModelInput.FORMAT_NHWC)
    assert list(given.dims) == list(warmup.inputs["input"].dims) == [8, 4, 3]
    assert warmup.inputs["input"].data_type == DataType.TYPE_UINT8


@pytest.mark.parametrize(
    ("device", "kind", "gpus"),
    [("cpu", "KIND_CPU", []), ("gpu", "KIND_GPU", []), ("gpu:0,1", "KIND_GPU", [0, 1])],
)
def test_devices(model: Path, folder: Path, device: str, kind: str, gpus: list[int]) -> None:
    write(model, folder, ServingOptions(device=device))
    (group,) = config(folder).instance_group
    assert (ModelInstanceGroup.Kind.Name(group.kind), list(group.gpus), group.count) == (kind, gpus, 1)


def test_tensorrt_comes_with_the_command_that_builds_its_engine(model: Path, folder: Path) -> None:
    folder = folder.parent / "my models"
    engine = write(model, folder, ServingOptions("tensorrt")).engine_command
    place = folder / "people" / "1"
    assert engine is not None and shlex.split(engine) == [
        "trtexec",
        f"--onnx={place}/model.onnx",
        "--minShapes=input:1x3x8x4",
        "--optShapes=input:4x3x8x4",
        "--maxShapes=input:16x3x8x4",
        f"--saveEngine={place}/model.plan",
        "--stronglyTyped",
    ]
    assert config(folder).platform == "tensorrt_plan" and (place / "model.onnx").is_file()
    assert "intra_op_thread_count" not in config(folder).parameters
    small = write(model, folder, ServingOptions("tensorrt", max_batch_size=2), name="small").engine_command
    assert small is not None and "--optShapes=input:2x3x8x4 --maxShapes=input:2x3x8x4" in small


def test_versions_are_added_and_only_the_newest_is_replaced(model: Path, folder: Path, tmp_path: Path) -> None:
    write(model, folder)
    for options in ({}, {"version": 1}):
        with pytest.raises(
            InputError, match="people exists: give --version 2 to add .* or --overwrite to replace ver.* 1"
        ):
            write(model, folder, **options)
    assert write(model, folder, ServingOptions(delay=7), version=2).version_folder.name == "2"
    assert tree(folder)[:3] == ["people/1/model.onnx", "people/2/model.onnx", "people/config.pbtxt"]
    assert config(folder).dynamic_batching.max_queue_delay_microseconds == 7
    with pytest.raises(InputError, match="people exists: give --version 3"):
        write(model, folder, version=1, overwrite=True)

    other = write_model(tmp_path / "other.onnx", metadata=METADATA | {"threshold_cosine": "0.5"})
    assert write(other, folder, overwrite=True).version_folder.name == "2"
    assert (folder / "people/2/model.onnx").read_bytes() == other.read_bytes()
    assert (folder / "people/1/model.onnx").read_bytes() == model.read_bytes()
    assert config(folder).parameters["threshold_cosine"].string_value == "0.5"


@pytest.mark.parametrize("options", [{"version": 2}, {"overwrite": True}])
@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"metadata": METADATA | {"std": "[0.5, 0.5, 0.5]"}}, "std"),
        ({"metadata": METADATA | {"interpolation": "bilinear", "l2_normalized": "true"}}, "interpolation, l2_norm"),
        ({"layout": "uint8_nhwc"}, "input"),
        ({"dimension": 6}, "output"),
    ],
)
def test_a_model_keeps_what_its_clients_prepare(
    model: Path, folder: Path, tmp_path: Path, made: dict[str, Any], said: str, options: dict[str, Any]
) -> None:
    write(model, folder)
    before = contents(folder)
    with pytest.raises(InputError, match=f"config.pbtxt has another {said}.* than the new file: choose another --name"):
        write(write_model(tmp_path / "other.onnx", **made), folder, **options)
    assert contents(folder) == before


def test_only_a_version_that_is_replaced_may_be_run_by_something_else(model: Path, folder: Path) -> None:
    write(model, folder)
    with pytest.raises(InputError, match="another platform than the new file"):
        write(model, folder, ServingOptions("tensorrt"), version=2)
    write(model, folder, ServingOptions("tensorrt"), overwrite=True)
    assert config(folder).platform == "tensorrt_plan"


def test_the_engine_of_a_network_goes_when_it_is_replaced(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = write(model, folder, ServingOptions("tensorrt")).version_folder / "model.plan"
    engine.write_bytes(b"engine")
    before = contents(folder)
    replace = os.replace

    def within_a_file_system(source: Path, target: Path) -> None:
        if folder in Path(target).parents and folder not in Path(source).parents:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", within_a_file_system)
        with pytest.raises(InputError, match="is the root of a file system; name a folder in it"):
            write(model, folder, ServingOptions("tensorrt"), overwrite=True)
    assert contents(folder) == before
    write(model, folder, ServingOptions("tensorrt"), overwrite=True)
    assert not engine.exists() and contents(folder).keys() < before.keys()


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "ä", "x" * 65])
def test_names_that_are_none(model: Path, folder: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not a valid model name: give --name"):
        write(model, folder, name=name)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preferred_batch_sizes": (4, 17)}, "preferred batch sizes 4, 17: each must be 1 to 16"),
        ({"device": "gpu:x"}, "device 'gpu:x': give auto, cpu, gpu or GPUs by number"),
        ({"device": "cpu:0"}, "device 'cpu:0': give auto"),
        ({"flavour": "tensorrt", "device": "cpu"}, "TensorRT runs on GPUs only"),
        ({"flavour": "tensorrt", "threads": 2}, "threads 2: TensorRT does not use them; leave them out"),
        ({"threads": 0}, "threads 0: give 1 or more"),
    ],
)
def test_ways_to_serve_that_there_are_not(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ServingOptions(**options)


def test_a_broken_file_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="weights.onnx is not an ONNX file"):
        write(tmp_path / "weights.onnx", folder)
    assert not folder.exists()


def test_files_in_the_way(model: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "people").write_text("")
    with pytest.raises(InputError, match="people is a file; choose another --name"):
        write(model, folder)
    with pytest.raises(InputError, match="cannot make the folder .*people: File exists"):
        write(model, folder / "people")
    (folder / "taken" / "1").mkdir(parents=True)
    (folder / "taken" / "config.pbtxt").write_text("no: { configuration")
    with pytest.raises(InputError, match="config.pbtxt cannot be read .* repair it, or choose another name"):
        write(model, folder, name="taken", version=2)
    assert tree(folder) == ["people", "taken/config.pbtxt", "models"]
