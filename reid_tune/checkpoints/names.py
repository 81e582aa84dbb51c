"""Names of checkpoint files, without anything heavy to import."""

from pathlib import Path

__all__ = ["BEST", "LATEST", "kept", "newest_attempt"]

LATEST = "reid_model_latest.pth"
BEST = "reid_model_best.pth"


def kept(epoch: int) -> str:
    """The name of a kept checkpoint; `epoch` is 0-based."""
    return f"model_epoch_{epoch:03d}.pth"


def newest_attempt(run: Path, before: int | None = None) -> Path | None:
    """The latest checkpoint of the newest `attempt-N` in a run's folder that has one, of those before one if given."""
    found = {path.parent.name.removeprefix("attempt-"): path for path in run.glob(f"attempt-*/{LATEST}")}
    numbers = [name for name in found if name.isdecimal() and (before is None or int(name) < before)]
    return found[max(numbers, key=int)] if numbers else None
