"""Registered models: one version holds what serves, what was trained and the spec of both."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import Difference
from reid_tune.tracking.gate import CONFIRM_FILE, Repeat, compare, read_repeats, registered_repeats
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
GATE_TAG = "reid_tune.gate"
CHALLENGER = "challenger"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, and what was decided when it was registered.

    Attributes:
        alias: The one that it was given then.
        against: The version that had the wanted alias; None where no other one had it.
        difference: This version minus that one over common splits, in mAP; None where there are none.
    """

    version: int
    alias: str
    against: int | None = None
    difference: Difference | None = None

    @property
    def reason(self) -> str:
        """Why it was given this alias, in words."""
        if self.against is None:
            return "no other version had the alias"
        if self.difference is None:
            return f"version {self.against} has the alias, and no paired results over common splits to compare with"
        mean, low, high = (100 * value for value in (self.difference.mean, self.difference.low, self.difference.high))
        gain = f"{mean:+.1f} points of mAP [{low:+.1f}, {high:+.1f}]"
        return f"{gain} against version {self.against}, over {self.difference.repeats} common split(s)"


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

    The alias is given to the version where no other version has it, or where this one beats the one that has it: the
    interval of their paired difference over common splits, from the `confirm.npz` of both, lies above 0. Otherwise
    the version becomes the `challenger`.

    Args:
        files: what to keep, by name in that folder; must hold `model.onnx`, one file with its weights inside.
        sweep: the name of the sweep, which is its experiment.
        uid: the unique id of the sweep.

    Raises:
        InputError: the model's name is not allowed, or a file is missing, damaged or no ONNX file.
        InfrastructureError: the store does not answer.
    """
    check_model_name(model)
    for path in files.values():
        if not Path(path).is_file():
            raise InputError(f"cannot register {model}: there is no file {path}.")
    repeats = read_repeats(files[CONFIRM_FILE]) if CONFIRM_FILE in files else ()
    with answering(uri):
        connection = client(uri)
        version = _registered(connection, model, uid)
        if version is None:
            source, run = _upload(connection, files, sweep, uid)
            version = connection.create_model_version(
                model, source, run, {SWEEP_TAG: uid, **tags}, description=description
            )
        if ALIAS_TAG not in version.tags:
            _give_alias(connection, version, set_alias, repeats)
        return _decided(connection, version)


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


def _give_alias(connection: "MlflowClient", version: "ModelVersion", wanted: str, repeats: Sequence[Repeat]) -> None:
    model, own, alias = version.name, str(version.version), wanted
    holder = _holder(connection, model, wanted)
    if holder is not None and str(holder.version) != own:
        found = compare(repeats, registered_repeats(connection, holder))
        gate = {"against": int(holder.version), "difference": found and found.as_dict()}
        # Before the alias moves, behind which there is nobody to compare with.
        connection.set_model_version_tag(model, own, GATE_TAG, json.dumps(gate))
        alias = wanted if found and found.beyond_noise else CHALLENGER
    connection.set_registered_model_alias(model, alias, own)
    # The last step: a version with this tag is complete, whatever happens to the aliases later.
    connection.set_model_version_tag(model, own, ALIAS_TAG, alias)


def _decided(connection: "MlflowClient", version: "ModelVersion") -> Registered:
    tags = connection.get_model_version(version.name, str(version.version)).tags
    gate = json.loads(tags.get(GATE_TAG, "{}"))
    difference = Difference(**gate["difference"]) if gate.get("difference") else None
    return Registered(int(version.version), tags[ALIAS_TAG], gate.get("against"), difference)


def _holder(connection: "MlflowClient", model: str, alias: str) -> "ModelVersion | None":
    """The version that has an alias; stores may keep the alias of a deleted one."""
    number = str(connection.get_registered_model(model).aliases.get(alias))
    versions = connection.search_model_versions(f"name = '{model}'")
    return next((version for version in versions if str(version.version) == number), None)


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
