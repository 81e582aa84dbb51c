"""Model repository for Triton: `NAME/config.pbtxt` and `NAME/1/model.onnx`."""

import errno
import os
import re
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.triton.config import ServingOptions, config_text, model_config, parse_config
from reid_tune.errors import InputError
from reid_tune.files import atomic_path, make_folder, output_error, write_atomic

__all__ = ["RepositoryModel", "write_repository"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONFIG = "config.pbtxt"
# Files in the folder of a version.
_MODEL, _ENGINE = "model.onnx", "model.plan"
# Fields and parameters of a configuration that all versions of a model share.
_SHARED_FIELDS = ("input", "output", "platform")
_SHARED_PARAMETERS = ("channels", "height", "width", "interpolation", "mean", "std", "l2_normalized")
# The batch that TAO's guide tunes the engine for (https://docs.nvidia.com/tao/, TRTEXEC with ReIdentificationNet).
_TUNED_BATCH = 4


@dataclass(frozen=True)
class RepositoryModel:
    """A model in a repository.

    Attributes:
        version_folder: Folder of the version that was written, with the model file.
        engine_command: Shell command that builds the TensorRT engine; None where the file itself is served.
    """

    version_folder: Path
    engine_command: str | None


def write_repository(
    model: Path,
    folder: Path,
    *,
    name: str,
    serving: ServingOptions,
    version: int | None = None,
    overwrite: bool = False,
) -> RepositoryModel:
    """Write an exported file and its configuration into a repository; a running server never reads partial files.

    The configuration is that of the newest version, which a server prefers. With TensorRT the server cannot load the
    model before its engine is built.

    Args:
        model: The .onnx file; it is copied.
        folder: The repository; made where it is missing.
        name: Name of the model, as clients call it.
        version: 1 or more; None for the first version of a new model, or to replace the newest.
        overwrite: Whether the newest version of an existing model is replaced.

    Raises:
        InputError: the name is invalid, the version exists or is older than the newest, the existing versions have
            another input, output or preprocessing, the file was not exported by reid-tune, or the folder cannot be
            written.
        InfrastructureError: the disk is full or broken.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is not a valid model name: give --name 1 to 64 letters, digits, '.', '_' or '-', the first one "
            "a letter or digit."
        )
    target = folder / name
    number = _choose_version(target, version, overwrite)
    version_folder = target / str(number)
    config = model_config(OnnxModel(model), name, serving)
    if target.exists():
        _require_compatible(target / _CONFIG, config, is_replacement=version_folder.exists())
    _write_model(model, config_text(config), target, number)
    command = _engine_command(config, version_folder) if serving.flavour == "tensorrt" else None
    return RepositoryModel(version_folder, command)


def _choose_version(target: Path, version: int | None, overwrite: bool) -> int:
    """Return the number of the version to write."""
    if not target.exists():
        return version or 1
    if not target.is_dir():
        raise InputError(f"{target} is a file; choose another --name.")
    newest = max((int(path.name) for path in target.iterdir() if path.name.isdecimal()), default=0)
    number = version or newest or 1
    if number < newest or (not overwrite and (version is None or number == newest)):
        hint = f", or --overwrite to replace version {newest}" if newest else ""
        raise InputError(f"{target} exists: give --version {newest + 1} to add a version{hint}.")
    return number


def _require_compatible(path: Path, config: Any, *, is_replacement: bool) -> None:
    """Refuse another input, output or preprocessing, as one configuration holds for all versions.

    Args:
        path: The existing configuration.
        config: The new one, a ModelConfig message.
        is_replacement: Whether a version is replaced, which may change the platform.
    """
    existing = parse_config(path)
    # Membership is tested first: looking up a missing parameter of a protobuf map would add it.
    shared = [key for key in _SHARED_PARAMETERS if key in existing.parameters and key in config.parameters]
    differing = [key for key in shared if existing.parameters[key] != config.parameters[key]]
    differing += [field for field in _SHARED_FIELDS if getattr(existing, field) != getattr(config, field)]
    if is_replacement and "platform" in differing:
        differing.remove("platform")
    if differing:
        raise InputError(f"{path} has another {', '.join(differing)} than the new file: choose another --name.")


def _write_model(model: Path, config: str, target: Path, number: int) -> None:
    """Stage the files of a version next to the repository, and move them into it."""
    folder = target.parent
    make_folder(folder)
    # Not in the repository, because a server would take even a hidden folder inside it for a model.
    try:
        with tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=f".{target.name}-") as scratch:
            staged = Path(scratch, target.name)
            write_atomic(staged / _CONFIG, config)
            with atomic_path(staged / str(number) / _MODEL) as copy:
                shutil.copyfile(model, copy)
            _move_into_repository(staged, target, number)
    except OSError as error:
        if error.errno == errno.EXDEV:
            message = f"cannot make {target}: {folder} is the root of a file system; name a folder in it."
            raise InputError(message) from None
        raise output_error(f"cannot make {target}", error) from None


def _move_into_repository(staged: Path, target: Path, number: int) -> None:
    """Move a staged model into its repository; each step leaves whole files."""
    if not target.exists():
        staged.rename(target)
        return
    version_folder = target / str(number)
    if version_folder.exists():
        # The step that fails on another file system comes first, while nothing is lost.
        hidden = version_folder / f".{_MODEL}"
        os.replace(staged / str(number) / _MODEL, hidden)
        (version_folder / _ENGINE).unlink(missing_ok=True)  # The engine of the network that is replaced.
        os.replace(hidden, version_folder / _MODEL)
    else:
        (staged / str(number)).rename(version_folder)
    os.replace(staged / _CONFIG, target / _CONFIG)


def _engine_command(config: Any, version_folder: Path) -> str:
    """Return the shell command that builds `model.plan` from `model.onnx`, on the GPU that serves it.

    The engine computes in the precision of the file: TensorRT 11 knows no other way, and `--stronglyTyped` asks 10 for
    it (https://docs.nvidia.com/deeplearning/tensorrt/, Migrating trtexec Usage).

    Args:
        config: The model's ModelConfig message.
    """
    tensor, largest = config.input[0], config.max_batch_size
    batches = {"min": 1, "opt": min(_TUNED_BATCH, largest), "max": largest}
    shapes = {
        f"{key}Shapes": f"{tensor.name}:{'x'.join(map(str, [size, *tensor.dims]))}" for key, size in batches.items()
    }
    options = {"onnx": version_folder / _MODEL, **shapes, "saveEngine": version_folder / _ENGINE}
    return shlex.join(["trtexec", *(f"--{key}={value}" for key, value in options.items()), "--stronglyTyped"])
