"""References to models: files, folders, registered models and sweeps."""

import re
from pathlib import Path

from reid_tune.checkpoints.filenames import BEST, LATEST, newest_checkpoint
from reid_tune.errors import InputError
from reid_tune.journal.sweep_lookup import sweep_folder

__all__ = ["CHECKPOINT", "ONNX", "model_name", "resolve_model", "resolve_models"]

# Names of the files in a version of a registered model.
CHECKPOINT, ONNX = "checkpoint.pth", "model.onnx"

_NAMED = re.compile(r"(?:models:/|sweep:)([^@/]+)")
_SWEEP = re.compile(r"sweep:([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:/(\d+))?")


def resolve_model(reference: str, file_name: str) -> Path:
    """Return the local file of a model.

    Args:
        reference: A path, `models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/ID/PATH`, `sweep:NAME` (the winner) or
            `sweep:NAME/7` (a trial).
        file_name: CHECKPOINT or ONNX, the file of a registered model; of a sweep's winner ONNX is preferred.

    Raises:
        InputError: the model or the file does not exist.
    """
    if reference.startswith("sweep:"):
        return _resolve_sweep(reference, file_name)
    if reference.startswith(("models:/", "runs:/")):
        return _resolve_registered(reference, file_name)
    path = Path(reference)
    if not path.is_file():
        hint = " (it is a folder: give a file in it)" if path.is_dir() else ""
        raise InputError(f"there is no checkpoint {reference}{hint}.")
    return path


def resolve_models(reference: str, file_name: str) -> list[Path]:
    """Return all checkpoints of a folder, or the one file that `resolve_model` finds.

    Of a folder these are all `model_epoch_*.pth` by epoch; where it has none, all .pth and .onnx files by name. The
    copies of a run's latest and best checkpoint are left out.

    Raises:
        InputError: the model does not exist, or the folder has no such file.
    """
    folder = Path(reference)
    if not folder.is_dir():
        return [resolve_model(reference, file_name)]
    files = [path for path in folder.iterdir() if path.is_file() and path.name not in (LATEST, BEST)]
    epochs = [path for path in files if path.match("model_epoch_*.pth")]
    models = epochs or [path for path in files if path.suffix in (".pth", ".onnx") and not path.name.startswith(".")]
    if not models:
        raise InputError(f"the folder {reference} has no checkpoint: it should hold model_epoch_*.pth, .pth or .onnx.")
    return sorted(models, key=lambda path: _natural_order(path.name))


def model_name(reference: str, path: Path) -> str:
    """Return the name of the registered model or the sweep in a reference, otherwise the stem of its file."""
    match = _NAMED.match(reference)
    return match[1] if match else path.stem


def _resolve_registered(reference: str, file_name: str) -> Path:
    from reid_tune.tracking.registry.resolve import resolve
    from reid_tune.tracking.store import tracking_uri

    path = resolve(reference, tracking_uri())
    if not path.is_dir():
        return path
    if not (path / file_name).is_file():
        names = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
        raise InputError(f"{reference} has no {file_name}; it has {names}.")
    return path / file_name


def _resolve_sweep(reference: str, file_name: str) -> Path:
    match = _SWEEP.fullmatch(reference)
    if match is None:
        raise InputError(f"'{reference}' does not name a model: write sweep:NAME or sweep:NAME/7.")
    name, trial = match.groups()
    folder = sweep_folder(name)
    onnx_file = folder / "export" / "winner.onnx"
    if trial is None and file_name == ONNX and onnx_file.is_file():
        return onnx_file
    run = folder / "refit" / "winner" if trial is None else folder / "trials" / f"{int(trial):04d}"
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        raise InputError(f"{reference} has no checkpoint: the run was removed, or has not finished an epoch.")
    return checkpoint


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders numbers by value: 999 before 1000."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
