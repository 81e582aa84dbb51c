"""Registration: one version holds what serves, what was trained and the spec of both."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import Difference
from reid_tune.tracking.promotion import CONFIRM_FILE, HoldoutResult, Verdict, compare_with_champion, read_repeats
from reid_tune.tracking.registry.aliases import CHALLENGER
from reid_tune.tracking.registry.find import version_with_alias, versions
from reid_tune.tracking.registry.history import move_alias
from reid_tune.tracking.registry.names import check_alias, check_model_name
from reid_tune.tracking.registry.package import ONNX_FILE, digest, write_package
from reid_tune.tracking.runs import SWEEP_TAG, parent_run
from reid_tune.tracking.store import client, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["RegisteredVersion", "register_version"]

DIGEST_TAG = "reid_tune.sha256"  # of the ONNX file
ALIAS_TAG = "reid_tune.alias"
GATE_TAG = "reid_tune.gate"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, and what was decided when it was registered.

    Attributes:
        alias: The one that it was given then.
        verdict: Why.
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
) -> RegisteredVersion:
    """Register what a sweep has won as one version; registering the same file of a sweep again returns that version.

    The version is a folder of the sweep's parent run: an MLflow ONNX model for `mlflow.pyfunc`, and each file as it is.

    The alias is given to the version where no other version has it, or where this one beats the one that has it: the
    interval of their paired difference over common splits, from the `confirm.npz` of both, lies above 0. Otherwise
    the version becomes the `challenger`.

    Args:
        files: what to keep, by name in that folder; must hold `model.onnx`, one file with its weights inside.
        sweep: the name of the sweep, which is its experiment.
        uid: the unique id of the sweep.
        description: Markdown.

    Raises:
        InputError: the model's name or the alias is not allowed, or a file is missing, damaged or no ONNX file.
        InfrastructureError: the store does not answer.
    """
    check_model_name(model)
    check_alias(set_alias)
    for path in files.values():
        if not Path(path).is_file():
            raise InputError(f"cannot register {model}: there is no file {path}.")
    repeats = read_repeats(files[CONFIRM_FILE]) if CONFIRM_FILE in files else ()
    with translate_errors(uri):
        connection = client(uri)
        own = {SWEEP_TAG: uid, DIGEST_TAG: digest(files[ONNX_FILE])}
        version = _registered(connection, model, own)
        if version is None:
            source, run = _upload(connection, files, sweep, own)
            version = connection.create_model_version(model, source, run, {**tags, **own}, description=description)
        if ALIAS_TAG not in version.tags:
            _give_alias(connection, version, set_alias, repeats)
        tags = connection.get_model_version(model, str(version.version)).tags
        return RegisteredVersion(int(version.version), tags[ALIAS_TAG], _verdict(tags))


def _registered(connection: "MlflowClient", model: str, own: Mapping[str, str]) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        connection.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return next((each for each in versions(connection, model).values() if own.items() <= each.tags.items()), None)


def _give_alias(
    connection: "MlflowClient", version: "ModelVersion", wanted: str, repeats: Sequence[HoldoutResult]
) -> None:
    model, own = version.name, str(version.version)
    other, alias = version_with_alias(connection, model, wanted), wanted
    if other is None or str(other.version) != own:
        verdict = compare_with_champion(connection, repeats, other)
        gate = {"against": verdict.against, "difference": verdict.difference and verdict.difference.as_dict()}
        # Before the alias moves, behind which there is nobody to compare with.
        connection.set_model_version_tag(model, own, GATE_TAG, json.dumps(gate))
        alias = wanted if verdict.passed else CHALLENGER
        move_alias(connection, model, alias, int(own), verdict.reason)
    # The last step: a version with this tag is complete, whatever happens to the aliases later.
    connection.set_model_version_tag(model, own, ALIAS_TAG, alias)


def _verdict(tags: Mapping[str, str]) -> Verdict:
    gate = json.loads(tags.get(GATE_TAG, "{}"))
    return Verdict(gate.get("against"), Difference(**gate["difference"]) if gate.get("difference") else None)


def _upload(
    connection: "MlflowClient", files: Mapping[str, Path], sweep: str, own: Mapping[str, str]
) -> tuple[str, str]:
    """The folder's address and the parent run; a sweep that is done again may register another model."""
    _, run = parent_run(connection, sweep, own[SWEEP_TAG])
    name = f"model-{own[DIGEST_TAG][:8]}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        write_package(folder, files)
        connection.log_artifacts(run, str(folder), name)
    return f"{connection.get_run(run).info.artifact_uri}/{name}", run
