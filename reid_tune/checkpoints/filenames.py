"""Names of checkpoint files, without anything heavy to import."""

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["BEST", "LATEST", "epoch_filename", "is_reference", "newest_checkpoint", "newest_checkpoint_name"]

LATEST = "reid_model_latest.pth"
BEST = "reid_model_best.pth"
_LATEST_OF = re.compile(rf"(?:.*/)?attempt-(\d+)/{re.escape(LATEST)}", re.ASCII)


def is_reference(text: str) -> bool:
    """Whether a checkpoint argument is a reference to a model, such as `models:/NAME@ALIAS`, and not a path."""
    return text.startswith(("models:/", "runs:/", "sweep:"))


def epoch_filename(epoch: int) -> str:
    """The name of a kept checkpoint; `epoch` is 0-based."""
    return f"model_epoch_{epoch:03d}.pth"


def newest_checkpoint(run: Path, before: int | None = None) -> Path | None:
    """The latest checkpoint of the newest `attempt-N` in a run's folder that has one, of those before one if given."""
    name = newest_checkpoint_name(
        (path.relative_to(run).as_posix() for path in run.glob(f"attempt-*/{LATEST}")), before
    )
    return run / name if name else None


def newest_checkpoint_name(names: Iterable[str], before: int | None = None) -> str | None:
    """The same of the names of a run's files."""
    matches = filter(None, map(_LATEST_OF.fullmatch, names))
    found = {int(match[1]): match[0] for match in matches if before is None or int(match[1]) < before}
    return found[max(found)] if found else None
