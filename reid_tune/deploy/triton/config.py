"""Configuration of a model for Triton, `config.pbtxt`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reid_tune.deploy.onnx_model import INPUT, OUTPUT, OnnxModel
from reid_tune.errors import InputError
from reid_tune.files import read_text

__all__ = ["ServingOptions", "config_text", "model_config", "parse_config"]

_PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}
_INPUTS = {"float_nchw": ("TYPE_FP32", "FORMAT_NCHW"), "uint8_nhwc": ("TYPE_UINT8", "FORMAT_NHWC")}
_LARGEST = 2**31 - 1
_DEVICE = re.compile(r"(auto|cpu|gpu)(?::(\d+(?:,\d+)*))?")


@dataclass(frozen=True)
class ServingOptions:
    """Options of a server that runs a model.

    Attributes:
        flavour: Runtime of the model.
        max_batch_size: Largest number of images in a request, and in a batch that the server makes of several.
        preferred_batch_sizes: Batch sizes that the server runs without waiting; empty leaves them to the server.
        delay: Microseconds that a request may wait for others to fill a batch.
        device: auto (the GPUs, or the CPU without any), cpu, gpu (all GPUs), or gpu:0,1 (these GPUs).
        instances: Number of copies of the model, on each GPU or on the CPU.
        threads: Threads of ONNX Runtime on the CPU in each instance; None leaves them to ONNX Runtime.

    Raises:
        InputError: a preferred size is above the largest, the device is unknown, threads are below 1, or TensorRT is
            asked for on the CPU or with threads.
    """

    flavour: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    max_batch_size: int = 16
    preferred_batch_sizes: tuple[int, ...] = ()
    delay: int = 0
    device: str = "auto"
    instances: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        numbers = {
            "largest batch": self.max_batch_size,
            "delay": self.delay,
            "instances": self.instances,
            "threads": self.threads or 1,
            "GPU": max(map(int, re.findall(r"\d+", self.device)), default=0),
        }
        for name, value in numbers.items():
            if value > _LARGEST:
                raise InputError(f"{name} {value}: {_LARGEST:,} is the largest number that a configuration can hold.")
        if any(not 1 <= size <= self.max_batch_size for size in self.preferred_batch_sizes):
            sizes = ", ".join(map(str, self.preferred_batch_sizes))
            raise InputError(f"preferred batch sizes {sizes}: each must be 1 to {self.max_batch_size}, the largest.")
        match = _DEVICE.fullmatch(self.device)
        if match is None or (match[2] and match[1] != "gpu"):
            raise InputError(f"device {self.device!r}: give auto, cpu, gpu or GPUs by number such as gpu:0,1.")
        if self.flavour == "tensorrt" and match[1] == "cpu":
            raise InputError("device 'cpu': TensorRT runs on GPUs only; give gpu, or flavour onnxruntime.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads {self.threads}: give 1 or more.")
        if self.threads and self.flavour == "tensorrt":
            raise InputError(
                f"threads {self.threads}: TensorRT does not use them; leave them out, or give flavour onnxruntime."
            )


def model_config(model: OnnxModel, name: str, serving: ServingOptions) -> Any:
    """Return the configuration as a ModelConfig message.

    All metadata of the file become parameters, in addition to those of the server's backend. The model counts as ready
    once it has embedded zeros, in batches of 1 and of the largest size.

    Raises:
        InputError: the extra `triton` is not installed.
    """
    schema, _ = _protobuf()
    data_type, layout = _INPUTS[model.preprocessing.layout]
    image_spec = model.preprocessing.image_spec
    size, channels = [image_spec.height, image_spec.width], image_spec.channels
    dims = [channels, *size] if layout == "FORMAT_NCHW" else [*size, channels]
    parameters = dict(model.metadata)
    if serving.threads:
        parameters["intra_op_thread_count"] = str(serving.threads)
    zeros = schema.ModelWarmup.Input(data_type=data_type, dims=dims, zero_data=True)
    return schema.ModelConfig(
        name=name,
        platform=_PLATFORMS[serving.flavour],
        max_batch_size=serving.max_batch_size,
        input=[{"name": INPUT, "data_type": data_type, "format": layout, "dims": dims}],
        output=[{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [model.dimension]}],
        instance_group=[_instances(serving)],
        dynamic_batching={
            "preferred_batch_size": serving.preferred_batch_sizes,
            "max_queue_delay_microseconds": serving.delay,
        },
        parameters={key: schema.ModelParameter(string_value=text) for key, text in parameters.items()},
        model_warmup=[
            {"name": f"batch {count}", "batch_size": count, "inputs": {INPUT: zeros}}
            for count in sorted({1, serving.max_batch_size})
        ],
    )


def config_text(config: Any) -> str:
    """Return a ModelConfig message in the format of `config.pbtxt`."""
    return str(_protobuf()[1].MessageToString(config, use_short_repeated_primitives=True))


def parse_config(path: Path) -> Any:
    """Return the ModelConfig message in a file.

    Raises:
        InputError: the file cannot be read, or the extra `triton` is not installed.
    """
    schema, text_format = _protobuf()
    try:
        return text_format.Parse(read_text(path), schema.ModelConfig())
    except (OSError, UnicodeError, text_format.ParseError) as error:
        raise InputError(f"{path} cannot be read ({error}): repair it, or choose another name.") from None


def _instances(serving: ServingOptions) -> dict[str, Any]:
    kind, _, numbers = serving.device.partition(":")
    gpus = [int(number) for number in numbers.split(",") if number]
    return {"kind": f"KIND_{kind.upper()}", "count": serving.instances, "gpus": gpus}


def _protobuf() -> tuple[Any, Any]:
    """Return the schema of the configuration, and protobuf's text format."""
    try:
        from google.protobuf import text_format  # type: ignore[import-untyped]
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError):  # RuntimeError: it is installed without gRPC.
        raise InputError("the command needs the extra 'triton': pip install 'reid-tune[triton]'.") from None
    return model_config_pb2, text_format
