"""Registration of a sweep's winner as a version that holds the exported model, the checkpoint and the spec."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.storage.temporary_folder import temporary_folder
from reid_tune.tracking.champion_comparison import COMPARED_TAG, COMPARISON_TAG, Verdict, judge, parse_verdict
from reid_tune.tracking.registry.alias_changes import move_alias
from reid_tune.tracking.registry.aliases import CHALLENGER
from reid_tune.tracking.registry.find import version_with_alias, versions
from reid_tune.tracking.registry.names import check_alias, check_model_name
from reid_tune.tracking.registry.package import ONNX_FILE, file_digest, write_package
from reid_tune.tracking.runs import SWEEP_TAG, parent_run
from reid_tune.tracking.store import open_client, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["RegisteredVersion", "register_version"]

_DIGEST_TAG = "reid_tune.sha256"  # of the ONNX file
_ALIAS_TAG = "reid_tune.alias"  # alias that the version got at registration
_GATE_TAG = "reid_tune.gate"  # decision about the alias at registration


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, and the decision about its alias at registration.

    Attributes:
        version: Number of the version.
        alias: Alias that the version got.
        verdict: Decision about the alias.
    """

    version: int
    alias: str
    verdict: Verdict = Verdict()


def register_version(
    uri: str,
    model: str,
    *,
    files: Mapping[str, Path],
    sweep: str,
    uid: str,
    description: str,
    tags: Mapping[str, str],
    comparison: Verdict | None = None,
    set_alias: str = "champion",
    start: int | None = None,
) -> RegisteredVersion:
    """Register the winner of a sweep as one version; registering the same file of a sweep again returns that version.

    The version is a folder of the sweep's parent run with an MLflow ONNX model for `mlflow.pyfunc` and all files as is.
    It gets the alias if no other version has it, or if the sweep has accepted it against the version that has it.
    Otherwise it becomes the `challenger`.

    Args:
        files: Files by their names in the folder, among them `model.onnx`, a single file that includes the weights.
        sweep: Name of the sweep, which is that of its experiment; `uid` is its unique id.
        description: Markdown text; `tags` are further tags of the version.
        comparison: Comparison of the winner with the champion in the sweep, None without one.
        start: Milliseconds since the epoch, for a run of the sweep that the store does not have yet.

    Raises:
        InputError: the model's name or the alias is not allowed, or a file is missing, damaged or not an ONNX file.
        InfrastructureError: the store does not answer.
    """
    _check_input(model, set_alias, files)
    recorded = json.dumps((comparison or Verdict()).as_dict())
    with translate_errors(uri):
        connection = open_client(uri)
        key = {SWEEP_TAG: uid, _DIGEST_TAG: file_digest(files[ONNX_FILE])}
        version = _find_registered(connection, model, key)
        if version is None:
            source, run = _upload(connection, files, sweep, key, start)
            version = connection.create_model_version(model, source, run, {**tags, **key}, description=description)
        # A sweep that has done `confirm` again may register the same file with another comparison.
        if _ALIAS_TAG not in version.tags or version.tags.get(COMPARISON_TAG) != recorded:
            _set_alias(connection, version, set_alias, comparison or Verdict())
            connection.set_model_version_tag(model, str(version.version), COMPARISON_TAG, recorded)
        tags = connection.get_model_version(model, str(version.version)).tags
    return RegisteredVersion(int(version.version), tags[_ALIAS_TAG], parse_verdict(model, tags, _GATE_TAG))


def _check_input(model: str, alias: str, files: Mapping[str, Path]) -> None:
    check_model_name(model)
    check_alias(alias)
    for path in files.values():
        if not Path(path).is_file():
            raise InputError(f"cannot register {model}: there is no file {path}.")


def _find_registered(connection: "MlflowClient", model: str, key: Mapping[str, str]) -> "ModelVersion | None":
    """Return the version with the tags `key`, None if there is none; the model is created if missing."""
    from mlflow.exceptions import MlflowException

    try:
        connection.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return next((item for item in versions(connection, model).values() if key.items() <= item.tags.items()), None)


def _set_alias(connection: "MlflowClient", version: "ModelVersion", alias: str, comparison: Verdict) -> None:
    """Give the alias to a version that may have it, and the alias `challenger` to any other."""
    model, number = version.name, str(version.version)
    incumbent = version_with_alias(connection, model, alias)
    if incumbent is None or str(incumbent.version) != number:
        verdict = judge(comparison, int(incumbent.version) if incumbent else None)
        compared = str(comparison.against)
        if comparison.difference is not None and compared in versions(connection, model):
            connection.set_model_version_tag(model, compared, f"{COMPARED_TAG}.{number}", comparison.reason)
        # Before the alias moves: afterwards the incumbent is no longer known.
        connection.set_model_version_tag(model, number, _GATE_TAG, json.dumps(verdict.as_dict()))
        alias = alias if verdict.is_accepted else CHALLENGER
        move_alias(connection, model, alias, int(number), verdict.reason)
    # The last step: a version with this tag is complete, even if its aliases change later.
    connection.set_model_version_tag(model, number, _ALIAS_TAG, alias)


def _upload(
    connection: "MlflowClient", files: Mapping[str, Path], sweep: str, key: Mapping[str, str], start: int | None
) -> tuple[str, str]:
    """Upload the folder of a version; return its address and the id of the parent run.

    The folder's name has the digest, as a sweep whose stages are repeated may register another model.
    """
    _, run = parent_run(connection, sweep, key[SWEEP_TAG], start)
    name = f"model-{key[_DIGEST_TAG][:8]}"
    with temporary_folder() as temporary:
        folder = temporary / name
        write_package(folder, files)
        connection.log_artifacts(run, str(folder), name)
    return f"{connection.get_run(run).info.artifact_uri}/{name}", run
