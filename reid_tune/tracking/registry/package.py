"""Folder of a version: an MLflow ONNX model with signature and input example, and further files without changes."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reid_tune.errors import InputError

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from onnx import GraphProto, ValueInfoProto

__all__ = ["ONNX_FILE", "file_digest", "write_package"]

ONNX_FILE = "model.onnx"  # the name under which MLflow's ONNX flavour reads its file


def write_package(folder: Path, files: Mapping[str, Path]) -> None:
    """Write a version's files into a new folder.

    Args:
        folder: Folder, which does not exist yet.
        files: Files by their names in the folder.

    Raises:
        InputError: `model.onnx` is not an ONNX file.
    """
    import mlflow.onnx
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(files[ONNX_FILE])
    except DecodeError:
        raise InputError(f"cannot register {files[ONNX_FILE]}: it is not an ONNX file.") from None
    signature = _signature(model.graph)
    (images,) = signature.inputs.inputs
    # The exported file then replaces that of MLflow, which has the same name, so that its content is unchanged.
    mlflow.onnx.save_model(
        model,
        str(folder),
        signature=signature,
        input_example=np.zeros([max(size, 1) for size in images.shape], images.type),
        save_as_external_data=False,
        pip_requirements=["onnx", "onnxruntime"],
        onnx_execution_providers=["CPUExecutionProvider"],
    )
    for name, path in files.items():
        shutil.copyfile(path, folder / name)


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _signature(graph: "GraphProto") -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from onnx.helper import tensor_dtype_to_np_dtype

    def tensor_spec(value: "ValueInfoProto", with_name: bool) -> TensorSpec:
        tensor = value.type.tensor_type
        shape = tuple(axis.dim_value or -1 for axis in tensor.shape.dim)
        return TensorSpec(tensor_dtype_to_np_dtype(tensor.elem_type), shape, value.name if with_name else None)

    # MLflow accepts an array without a name only if the input has no name.
    return ModelSignature(
        inputs=Schema([tensor_spec(value, with_name=False) for value in graph.input]),
        outputs=Schema([tensor_spec(value, with_name=True) for value in graph.output]),
    )
