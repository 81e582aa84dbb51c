"""Registered models: one version holds what serves, what was trained and the spec of both."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.tracking.runs import SWEEP_TAG, parent_run
from reid_tune.tracking.store import answering, client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from onnx import GraphProto, ValueInfoProto

__all__ = ["Registered", "check_model_name", "register"]

FOLDER = "model"  # of the parent run's artifacts
ONNX_FILE = "model.onnx"  # the name under which MLflow's ONNX flavour reads its file
ALIAS_TAG = "reid_tune.alias"
CHALLENGER = "challenger"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, and the alias that it was given when it was registered."""

    version: int
    alias: str


def register(
    uri: str,
    model: str,
    *,
    files: Mapping[str, Path],
    sweep: str,
    uid: str,
    description: str,
    tags: Mapping[str, str],
    set_alias: str = "champion",
) -> Registered:
    """Register what a sweep has won as one version; registering the same sweep again returns that version.

    The version is a folder of the sweep's parent run: an MLflow ONNX model for `mlflow.pyfunc`, and each file as it is.

    Args:
        files: what to keep, by name in that folder; must hold `model.onnx`, one file with its weights inside.
        sweep: the name of the sweep, which is its experiment.
        uid: the unique id of the sweep.
        set_alias: given to the version where no other version has it; otherwise it becomes the `challenger`.

    Raises:
        InputError: the model's name is not allowed, or a file is missing or no ONNX file.
        InfrastructureError: the store does not answer.
    """
    check_model_name(model)
    for path in files.values():
        if not Path(path).is_file():
            raise InputError(f"cannot register {model}: there is no file {path}.")
    with answering(uri):
        connection = client(uri)
        version = _registered(connection, model, uid)
        if version is None:
            source, run = _upload(connection, files, sweep, uid)
            version = connection.create_model_version(
                model, source, run, {SWEEP_TAG: uid, **tags}, description=description
            )
        alias = version.tags.get(ALIAS_TAG) or _give_alias(connection, version, set_alias)
        return Registered(int(version.version), alias)


def check_model_name(model: str) -> None:
    """Refuse names that MLflow or an address such as `models:/NAME@ALIAS` cannot hold.

    Raises:
        InputError: the name has other characters or is too long.
    """
    if not re.fullmatch(r"\w[\w. -]{0,127}", model):
        raise InputError(
            f"registry.model: {model!r} cannot name a model; use at most 128 letters, digits, '_', '-', '.' and spaces."
        )


def _registered(connection: "MlflowClient", model: str, uid: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        connection.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = connection.search_model_versions(f"name = '{model}'")
    return next((version for version in versions if version.tags.get(SWEEP_TAG) == uid), None)


def _give_alias(connection: "MlflowClient", version: "ModelVersion", wanted: str) -> str:
    holders = connection.get_registered_model(version.name).aliases
    own = str(version.version)
    alias = wanted if str(holders.get(wanted, own)) == own else CHALLENGER
    connection.set_registered_model_alias(version.name, alias, own)
    # The last step: a version with this tag is complete, whatever happens to the aliases later.
    connection.set_model_version_tag(version.name, own, ALIAS_TAG, alias)
    return alias


def _upload(connection: "MlflowClient", files: Mapping[str, Path], sweep: str, uid: str) -> tuple[str, str]:
    _, run = parent_run(connection, sweep, uid)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / FOLDER
        _write_model(folder, Path(files[ONNX_FILE]))
        for name, path in files.items():
            shutil.copyfile(path, folder / name)
        connection.log_artifacts(run, str(folder), FOLDER)
    return f"{connection.get_run(run).info.artifact_uri}/{FOLDER}", run


def _write_model(folder: Path, file: Path) -> None:
    import mlflow.onnx
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(file)
    except DecodeError:
        raise InputError(f"cannot register {file}: it is not an ONNX file.") from None
    # The file that MLflow writes here is replaced by the exported one: same name, nothing re-packed.
    mlflow.onnx.save_model(
        model,
        str(folder),
        signature=_signature(model.graph),
        save_as_external_data=False,
        pip_requirements=["onnx", "onnxruntime"],
        onnx_execution_providers=["CPUExecutionProvider"],
    )


def _signature(graph: "GraphProto") -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from onnx.helper import tensor_dtype_to_np_dtype

    def spec(value: "ValueInfoProto", named: bool) -> TensorSpec:
        tensor = value.type.tensor_type
        shape = tuple(axis.dim_value or -1 for axis in tensor.shape.dim)
        return TensorSpec(tensor_dtype_to_np_dtype(tensor.elem_type), shape, value.name if named else None)

    # MLflow takes a plain array only where the input has no name.
    return ModelSignature(
        inputs=Schema([spec(value, named=False) for value in graph.input]),
        outputs=Schema([spec(value, named=True) for value in graph.output]),
    )
