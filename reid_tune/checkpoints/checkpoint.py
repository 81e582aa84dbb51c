"""Checkpoint files: tensors and JSON-able metadata, without code, and encrypted if there is a key."""

import io
import pickle
import platform
import warnings
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy
import torch
from torch import Tensor

from reid_tune import __version__
from reid_tune.checkpoints.damage import content_digest, find_damaged_record, is_zip
from reid_tune.checkpoints.encryption import decrypt, encrypt_in_subprocess, is_encrypted
from reid_tune.checkpoints.file_kind import describe_other_kind
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import atomic_path, write_atomic

__all__ = [
    "Checkpoint",
    "is_checkpoint_content",
    "is_encrypted_file",
    "load_checkpoint",
    "package_versions",
    "save_checkpoint",
    "strip_checkpoint",
]

_FORMAT, _DIGEST = "reid-tune checkpoint 1", "digest"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run after one of its epochs.

    Attributes:
        spec: The experiment as nested mappings, without the encryption key.
        epoch: Number of finished epochs.
        identities: Identity of each row of the classifier.
        history: Metrics of every finished epoch, each with its 1-based `epoch`.
        model: The network's tensors; with `train.ema_decay` their average over the steps.
        optimizer: The optimizer's state.
        versions: Versions of the packages that wrote it.
        centers: Centres of the center loss, [identities, dimension]; None without a center loss.
        scaler: State of the loss scaling; empty without half precision.
        images: Fingerprints of the images that the weights were trained on, int64 [images], see `image_fingerprints`.
            Those of pretrained weights are among them. None if they are unknown.
        trained_model: The tensors that the next step changes, if `model` is an average; otherwise empty.
    """

    spec: dict[str, Any]
    epoch: int
    identities: list[int]
    history: list[dict[str, Any]]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    centers: Tensor | None = None
    scaler: dict[str, Any] = field(default_factory=dict)
    images: Tensor | None = None
    trained_model: dict[str, Tensor] = field(default_factory=dict)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {
        "reid-tune": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": metadata.version("timm"),
        "numpy": numpy.__version__,
    }


def is_encrypted_file(path: Path) -> bool:
    """Whether the path is an encrypted file, in the age format."""
    try:
        with path.open("rb") as file:
            return is_encrypted(file.read(32))
    except OSError:
        return False


def save_checkpoint(path: Path | str, checkpoint: Checkpoint, key: str | None = None) -> None:
    """Write a checkpoint atomically.

    Args:
        path: The file.
        checkpoint: Its content.
        key: Passphrase that encrypts the whole file, none of which reaches the disk unencrypted; None to not encrypt.

    Raises:
        InputError: The folder cannot be written, or the key is not printable text.
        InfrastructureError: The disk is full or broken.
    """
    content = {"format": _FORMAT, **vars(checkpoint), "versions": package_versions()}
    content[_DIGEST] = content_digest(content)
    if key is None:
        with atomic_path(path) as temporary:
            try:
                torch.save(content, temporary)
            except RuntimeError as error:  # PyTorch's writer hides the disk's error
                raise InfrastructureError(f"cannot write {path} ({error}): is the disk full?") from None
        return
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, encrypt_in_subprocess(buffer.getvalue(), key))


def strip_checkpoint(path: Path | str, target: Path | str, key: str | None = None) -> None:
    """Copy a checkpoint without its optimizer, for use and not for more training; a third of the size.

    The fingerprints of its training images are kept.

    With a key the copy is encrypted, so the copy of an encrypted checkpoint always is.
    """
    stripped = replace(load_checkpoint(path, key), optimizer={}, centers=None, scaler={}, trained_model={})
    save_checkpoint(target, stripped, key)


def load_checkpoint(path: Path | str, key: str | None = None) -> Checkpoint:
    """Read a checkpoint onto the CPU without executing any code that it may contain.

    Args:
        path: The file.
        key: Passphrase of an encrypted checkpoint; not needed for an unencrypted one.

    Raises:
        InputError: The file is missing, not a checkpoint of reid-tune, has no digest or differs from it, contains
            objects other than tensors and data, or is encrypted with another key.
    """
    content = _load(Path(path), key)
    if not is_checkpoint_content(content):
        raise InputError(f"{path} is not a checkpoint of reid-tune: give a file written by `reid-tune train`.")
    if _DIGEST not in content:
        raise InputError(
            f"{path} has no digest, so an older version of reid-tune wrote it: use it with that version, or train "
            "again."
        )
    if content.pop(_DIGEST) != content_digest(content):
        raise _damage(path, "its content differs from its digest")
    del content["format"]
    try:
        return Checkpoint(**content)
    except TypeError:
        raise InputError(
            f"{path} was written by another version of reid-tune: its parts are {', '.join(map(str, content))}."
        ) from None


def is_checkpoint_content(content: Any) -> bool:
    """Whether a file's content is that of a checkpoint of reid-tune."""
    return isinstance(content, dict) and content.get("format") == _FORMAT


def _damage(path: Path | str, reason: str) -> InputError:
    return InputError(
        f"{path} is damaged, so nothing of it is used: {reason}: restore the file from a copy, or use another "
        "checkpoint of the run."
    )


def _load(path: Path, key: str | None) -> Any:
    if not path.is_file():
        hint = " (it is a folder: give a file in it)" if path.is_dir() else ""
        raise InputError(f"there is no checkpoint {path}{hint}.")
    try:
        with path.open("rb") as file:
            return _read_tensors(_decrypted(file, key, path), path)
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror}.") from None


def _decrypted(file: IO[bytes], key: str | None, path: Path) -> IO[bytes]:
    encrypted = is_encrypted(file.read(32))
    file.seek(0)
    return io.BytesIO(decrypt(file.read(), key, str(path))) if encrypted else file


def _read_tensors(file: IO[bytes], path: Path) -> Any:
    if not is_zip(file):
        kind = describe_other_kind(path) or "is not a file written by torch.save"
        raise InputError(f"{path} is not a checkpoint: it {kind}.")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch guesses about damaged bytes
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise errors of any kind
        if record := find_damaged_record(file):
            raise _damage(path, f"{record} in it differs from its checksum") from None
        if isinstance(error, pickle.UnpicklingError):
            raise InputError(
                f"{path} is rejected: it contains code or objects other than tensors and plain data; give weights of "
                "another tool as model.pretrained_model_path."
            ) from None
        raise InputError(f"{path} is not a checkpoint, or it is damaged.") from None
    if not is_checkpoint_content(content) and (record := find_damaged_record(file)):
        raise _damage(path, f"{record} in it differs from its checksum")
    return content
