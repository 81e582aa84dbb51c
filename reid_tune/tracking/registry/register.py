"""Registration of a sweep's winner as a version that holds the exported model, the checkpoint and the spec."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import Difference
from reid_tune.storage.temporary_folder import temporary_folder
from reid_tune.tracking.champion_comparison import (
    CONFIRM_FILE,
    HoldoutResult,
    Verdict,
    compare_with_champion,
    read_repeats,
)
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
_GATE_TAG = "reid_tune.gate"  # comparison with the version that had the alias


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, and the decision about its alias at registration.

    Attributes:
        version: Number of the version.
        alias: Alias that the version got.
        verdict: Comparison that decided about the alias.
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
    set_alias: str = "champion",
    start: int | None = None,
) -> RegisteredVersion:
    """Register the winner of a sweep as one version; registering the same file of a sweep again returns that version.

    The version is a folder of the sweep's parent run with an MLflow ONNX model for `mlflow.pyfunc` and all files as is.

    The version gets the alias if no other version has it, or if it beats the version that has it: the interval of
    their paired difference on common splits, from the `confirm.npz` of both, is above 0. Otherwise it becomes the
    `challenger`.

    Args:
        files: Files by their names in the folder, among them `model.onnx`, a single file that includes the weights.
        sweep: Name of the sweep, which is that of its experiment.
        uid: Unique id of the sweep.
        description: Markdown text.
        tags: Tags of the version.
        start: Milliseconds since the epoch, for a run of the sweep that the store does not have yet.

    Raises:
        InputError: the model's name or the alias is not allowed, or a file is missing, damaged or not an ONNX file.
        InfrastructureError: the store does not answer.
    """
    _check_input(model, set_alias, files)
    repeats = read_repeats(files[CONFIRM_FILE]) if CONFIRM_FILE in files else ()
    with translate_errors(uri):
        connection = open_client(uri)
        key = {SWEEP_TAG: uid, _DIGEST_TAG: file_digest(files[ONNX_FILE])}
        version = _find_registered(connection, model, key)
        if version is None:
            source, run = _upload(connection, files, sweep, key, start)
            version = connection.create_model_version(model, source, run, {**tags, **key}, description=description)
        if _ALIAS_TAG not in version.tags:
            _set_alias(connection, version, set_alias, repeats)
        tags = connection.get_model_version(model, str(version.version)).tags
    return RegisteredVersion(int(version.version), tags[_ALIAS_TAG], _read_verdict(model, tags))


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


def _set_alias(
    connection: "MlflowClient", version: "ModelVersion", alias: str, repeats: Sequence[HoldoutResult]
) -> None:
    """Give the alias to a version that may have it, and the alias `challenger` to any other."""
    model, number = version.name, str(version.version)
    incumbent = version_with_alias(connection, model, alias)
    if incumbent is None or str(incumbent.version) != number:
        verdict = compare_with_champion(connection, repeats, incumbent)
        gate = {"against": verdict.incumbent, "difference": verdict.difference and verdict.difference.as_dict()}
        # Before the alias moves: afterwards the incumbent is no longer known.
        connection.set_model_version_tag(model, number, _GATE_TAG, json.dumps(gate))
        alias = alias if verdict.is_accepted else CHALLENGER
        move_alias(connection, model, alias, int(number), verdict.reason)
    # The last step: a version with this tag is complete, even if its aliases change later.
    connection.set_model_version_tag(model, number, _ALIAS_TAG, alias)


def _read_verdict(model: str, tags: Mapping[str, str]) -> Verdict:
    text = tags.get(_GATE_TAG, "{}")
    try:
        gate = json.loads(text)
        verdict = Verdict(gate.get("against"), Difference(**gate["difference"]) if gate.get("difference") else None)
        _ = verdict.is_accepted, verdict.reason  # which need numbers
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"the tag {_GATE_TAG} of a version of {model} has been changed, and is not a comparison of two versions: "
            f"{text[:80]!r}: correct or delete it."
        ) from None
    return verdict


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
