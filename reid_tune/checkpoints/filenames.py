"""Names of checkpoint files; imports nothing large."""

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["BEST", "LATEST", "epoch_filename", "is_reference", "newest_checkpoint", "newest_checkpoint_name"]

LATEST = "reid_model_latest.pth"
BEST = "reid_model_best.pth"
_LATEST_OF_ATTEMPT = re.compile(rf"(?:.*/)?attempt-(\d+)/{re.escape(LATEST)}", re.ASCII)


def is_reference(text: str) -> bool:
    """Whether a checkpoint argument is a reference to a model, such as `models:/NAME@ALIAS`, and not a path."""
    return text.startswith(("models:/", "runs:/", "sweep:"))


def epoch_filename(epoch: int) -> str:
    """Return the file name of the checkpoint of a 0-based epoch."""
    return f"model_epoch_{epoch:03d}.pth"


def newest_checkpoint(run: Path, before: int | None = None) -> Path | None:
    """Return the latest checkpoint of a run's newest attempt that has one.

    Args:
        run: Folder of the run, with subfolders `attempt-N`.
        before: Number of an attempt; only earlier attempts count. None for all.
    """
    name = newest_checkpoint_name(
        (path.relative_to(run).as_posix() for path in run.glob(f"attempt-*/{LATEST}")), before
    )
    return run / name if name else None


def newest_checkpoint_name(names: Iterable[str], before: int | None = None) -> str | None:
    """Return the name of the file that `newest_checkpoint` finds, from the names of a run's files."""
    matches = filter(None, map(_LATEST_OF_ATTEMPT.fullmatch, names))
    name_of = {int(match[1]): match[0] for match in matches if before is None or int(match[1]) < before}
    return name_of[max(name_of)] if name_of else None
