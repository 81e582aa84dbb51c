"""Our checkpoint files: tensors and JSON-able metadata, nothing that runs when it is read."""

import pickle
import platform
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy
import timm
import torch
from torch import Tensor

from reid_tune import __version__
from reid_tune.errors import InputError
from reid_tune.files import atomic

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint", "strip_checkpoint", "versions"]

_FORMAT = "reid-tune checkpoint 1"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run behind one of its epochs.

    Attributes:
        spec: The experiment as nested mappings, without the encryption key.
        epoch: Number of finished epochs.
        identities: Identity of each classifier row.
        history: Metrics of every finished epoch, each with its 1-based `epoch`.
        model: The network's tensors.
        optimizer: The optimizer's state.
        versions: Packages that made it.
    """

    spec: dict[str, Any]
    epoch: int
    identities: list[int]
    history: list[dict[str, Any]]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "reid-tune": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "numpy": numpy.__version__,
    }


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    content = {"format": _FORMAT, **vars(checkpoint), "versions": versions()}
    with atomic(path) as temporary:
        torch.save(content, temporary)


def strip_checkpoint(path: Path | str, target: Path | str) -> None:
    """Copy a checkpoint without its optimizer, a third of the size: for use, not for more training."""
    save_checkpoint(target, replace(load_checkpoint(path), optimizer={}))


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code that it may carry.

    Raises:
        InputError: no such file, not one of our checkpoints, damaged, or with objects other than tensors and data.
    """
    content = _load(Path(path))
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise InputError(f"{path} is not a checkpoint of reid-tune: give a file that `reid-tune train` wrote.")
    try:
        return Checkpoint(**content)
    except TypeError:
        raise InputError(f"{path} is a damaged checkpoint: its parts are {', '.join(map(str, content))}.") from None


def _load(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}.")
    try:
        if zipfile.is_zipfile(path):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path} is refused: it carries code or objects other than tensors and plain data.") from None
    except Exception:  # Both readers raise whatever damaged bytes lead them to.
        raise InputError(f"{path} is not a checkpoint, or it is damaged.") from None
    raise InputError(f"{path} is not a checkpoint: it is not a file that torch.save wrote.")
