"""A model repository for Triton: `NAME/config.pbtxt` and `NAME/1/model.onnx`."""

import errno
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.triton.config import ServingOptions, model_config, parse, to_text
from reid_tune.deploy.triton.engine import ENGINE, MODEL, engine_command
from reid_tune.errors import InputError
from reid_tune.files import atomic_path, make_folder, write_atomic, write_error

__all__ = ["WrittenModel", "write_repository"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONFIG = "config.pbtxt"
_SIDES = ("input", "output", "platform")
_PREPARATION = ("channels", "height", "width", "interpolation", "mean", "std", "l2_normalized")


@dataclass(frozen=True)
class WrittenModel:
    """A model in a repository.

    Attributes:
        version: The folder with the file.
        engine: The command that builds the engine; None where the file itself is served.
    """

    version: Path
    engine: str | None


def write_repository(
    model: Path, folder: Path, *, name: str, serving: ServingOptions, version: int | None = None, overwrite: bool = False
) -> WrittenModel:
    """Put an exported file into a repository, under a name; what a server may be reading there is never half-written.

    The configuration is that of the newest version, which a server prefers. With TensorRT the server cannot load the
    model before its engine is built.

    Args:
        model: The .onnx file; it is copied.
        folder: The repository; made where it is missing.
        name: Of the model, as clients call it.
        version: 1 or more; None for the first of a new model, or to replace the newest.
        overwrite: Replace the newest version of a model that there is.

    Raises:
        InputError: a bad name, a version that exists or is older than one there, another input, output or
            preprocessing than the versions there, no exported file, or a folder that cannot be written.
        InfrastructureError: the disk is full or broken.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a model: give --name 1 to 64 letters, digits, '.', '_' or '-'.")
    target = folder / name
    number = _number(target, version, overwrite)
    placed = target / str(number)
    config = model_config(OnnxModel(model), name, serving)
    if target.exists():
        _require_same(target / _CONFIG, config, replaced=placed.exists())
    make_folder(folder)
    # Beside the repository: in it, a server would take even a hidden folder for a model.
    try:
        with tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=f".{name}-") as scratch:
            staged = Path(scratch, name)
            write_atomic(staged / _CONFIG, to_text(config))
            with atomic_path(staged / str(number) / MODEL) as copy:
                shutil.copyfile(model, copy)
            _place(staged, target, number)
    except OSError as error:
        if error.errno == errno.EXDEV:
            fault = f"cannot make {target}: {folder} is a file system of its own; name a folder in it."
            raise InputError(fault) from None
        raise write_error(f"cannot make {target}", error) from None
    return WrittenModel(placed, engine_command(config, placed) if serving.flavour == "tensorrt" else None)


def _number(target: Path, version: int | None, overwrite: bool) -> int:
    """The version to write."""
    if not target.exists():
        return version or 1
    if not target.is_dir():
        raise InputError(f"{target} is a file; choose another --name.")
    newest = max((int(path.name) for path in target.iterdir() if path.name.isdecimal()), default=0)
    number = version or newest or 1
    if number < newest or (not overwrite and (version is None or number == newest)):
        replace = f", or --overwrite to replace version {newest}" if newest else ""
        raise InputError(f"{target} exists: give --version {newest + 1} to add a version{replace}.")
    return number


def _require_same(path: Path, config: Any, *, replaced: bool) -> None:
    """One configuration is for all versions, so none may come with another input, output or preprocessing.

    Args:
        replaced: A version is replaced, which may be run by something else from now on.
    """
    known = parse(path)
    # Asked first: looking up a parameter that is not there would add it.
    both = [key for key in _PREPARATION if key in known.parameters and key in config.parameters]
    other = [key for key in both if known.parameters[key] != config.parameters[key]]
    other += [side for side in _SIDES if getattr(known, side) != getattr(config, side)]
    if replaced and "platform" in other:
        other.remove("platform")
    if other:
        raise InputError(f"{path} has another {', '.join(other)} than the new file: choose another --name.")


def _place(staged: Path, target: Path, number: int) -> None:
    """Move a model into its repository; each step leaves whole files."""
    if not target.exists():
        staged.rename(target)
        return
    place = target / str(number)
    if place.exists():
        # What fails on another file system comes first, while nothing is lost.
        beside = place / f".{MODEL}"
        os.replace(staged / str(number) / MODEL, beside)
        (place / ENGINE).unlink(missing_ok=True)  # of the network that is replaced
        os.replace(beside, place / MODEL)
    else:
        (staged / str(number)).rename(place)
    os.replace(staged / _CONFIG, target / _CONFIG)
