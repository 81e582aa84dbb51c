"""What a checkpoint argument names: a file, a registered model, a run's artifact, a sweep's winner."""

import re
from pathlib import Path

from reid_tune.checkpoints.filenames import BEST, LATEST, newest_checkpoint
from reid_tune.errors import InputError

__all__ = ["CHECKPOINT", "ONNX", "is_reference", "resolve", "resolve_all"]

# Names of the files in a version of a registered model.
CHECKPOINT, ONNX = "checkpoint.pth", "model.onnx"

_REGISTERED = ("models:/", "runs:/")
_SWEEP = re.compile(r"sweep:([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:/(\d+))?")


def is_reference(text: str) -> bool:
    """Whether a checkpoint argument names something other than a file."""
    return text.startswith((*_REGISTERED, "sweep:"))


def resolve(reference: str, wanted: str) -> Path:
    """The local file that a reference names.

    Args:
        reference: A path, `models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/ID/PATH`, `sweep:NAME` (the winner) or
            `sweep:NAME/7` (a trial).
        wanted: CHECKPOINT or ONNX, which of a model's files.

    Raises:
        InputError: it names nothing that exists.
    """
    if reference.startswith(_REGISTERED):
        from reid_tune.tracking.registry.resolve import resolve as resolve_registered
        from reid_tune.tracking.store import tracking_uri

        found = resolve_registered(reference, tracking_uri())
        if not found.is_dir():
            return found
        if not (found / wanted).is_file():
            there = ", ".join(sorted(path.name for path in found.iterdir())) or "nothing"
            raise InputError(f"{reference} has no {wanted}; it has {there}.")
        return found / wanted
    if reference.startswith("sweep:"):
        return _from_sweep(reference, wanted)
    path = Path(reference)
    if not path.is_file():
        hint = " (it is a folder: name a file in it)" if path.is_dir() else ""
        raise InputError(f"there is no checkpoint {reference}{hint}.")
    return path


def resolve_all(reference: str, wanted: str) -> list[Path]:
    """The files of a folder's checkpoints, else the one file that `resolve` finds.

    Of a folder these are all `model_epoch_*.pth` by epoch; where it has none, all .pth and .onnx files by name. Copies,
    the latest and the best checkpoint of a run, are left out.

    Raises:
        InputError: see `resolve`, or the folder has no such file.
    """
    folder = Path(reference)
    if not folder.is_dir():
        return [resolve(reference, wanted)]
    files = [path for path in folder.iterdir() if path.is_file() and path.name not in (LATEST, BEST)]
    kept = [path for path in files if path.match("model_epoch_*.pth")]
    found = kept or [path for path in files if path.suffix in (".pth", ".onnx") and not path.name.startswith(".")]
    if not found:
        raise InputError(f"the folder {reference} has no checkpoint: it should hold model_epoch_*.pth, .pth or .onnx.")
    return sorted(found, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts numbers by value: 999 before 1000."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _from_sweep(reference: str, wanted: str) -> Path:
    match = _SWEEP.fullmatch(reference)
    if match is None:
        raise InputError(f"'{reference}' names no model: write sweep:NAME or sweep:NAME/7.")
    name, trial = match.groups()
    sweep = Path("runs") / name
    if not (sweep / "events.jsonl").is_file():
        known = ", ".join(sorted(path.parent.name for path in Path("runs").glob("*/events.jsonl"))) or "none"
        raise InputError(f"there is no sweep {name} in {Path('runs').absolute()}; sweeps there: {known}.")
    if trial is None and wanted == ONNX and (sweep / "export" / "winner.onnx").is_file():
        return sweep / "export" / "winner.onnx"
    run = sweep / "refit" / "winner" if trial is None else sweep / "trials" / f"{int(trial):04d}"
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        raise InputError(f"{reference} has no checkpoint: the run was removed, or has not finished an epoch.")
    return checkpoint
