"""Pretrained weights for a network that is to be trained."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.checkpoints.encryption import is_encrypted_file
from reid_tune.checkpoints.key_mapping import extract_tensors, to_reid_tune_keys
from reid_tune.checkpoints.third_party import read_third_party_weights
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.modeling.network import ReIDNet
from reid_tune.modeling.weights import is_optional, load_weights
from reid_tune.storage.download_cache import ensure_local_file

__all__ = ["LoadedWeights", "load_pretrained"]

_BACKBONE = "backbone."
_SHOWN = 4
# A file that fills less of a backbone, or has a tenth more than it, is of another network.
_ENOUGH = 0.9
_HEAD = re.compile(r"^backbone\.(fc|head|head_dist|classifier|norm\d)\.")


@dataclass(frozen=True)
class LoadedWeights:
    """What came from a file of pretrained weights; `str` is the report for the user.

    Attributes:
        path: The file.
        sha256: Its digest, in hexadecimal.
        backbone: Number of tensors of the network's backbone.
        loaded: Names of the network's tensors that came from the file, the resized ones too.
        resized: Those of them that were fitted to another input or window size.
        left: Names of the file's tensors, as the network would call them, that were not taken.
        untrained: Names of the network's tensors that were wanted, but are absent from the file or of another shape.
    """

    path: Path
    sha256: str
    backbone: int
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    left: tuple[str, ...]
    untrained: tuple[str, ...]

    def __str__(self) -> str:
        inside = sum(name.startswith(_BACKBONE) for name in self.loaded)
        others = f" and {len(self.loaded) - inside} others" if len(self.loaded) > inside else ""
        lines = [
            f"pretrained weights: {self.path} (sha256 {self.sha256})",
            f"  loaded {inside} of the backbone's {self.backbone} tensors{others}",
        ]
        if self.resized:
            lines.append(f"  resized: {_shortened(self.resized)}")
        if self.left:
            lines.append(f"  left in the file: {_shortened(self.left)}")
        if self.untrained:
            warning = "warning: " if any(name.startswith(_BACKBONE) for name in self.untrained) else ""
            lines.append(f"  {warning}absent or of another shape, so untrained: {_shortened(self.untrained)}")
        return "\n".join(lines)


def load_pretrained(network: ReIDNet, experiment: Experiment, identities: Sequence[int]) -> LoadedWeights | None:
    """Copy the weights of `model.pretrained_model_path` into a network, before its training.

    `pretrain_choice: imagenet` takes the backbone's, `self` all that fit; the classifier's only from a checkpoint of
    ours with the same identities in the same order.

    Args:
        identities: Identity of each of the network's classifier rows.

    Returns:
        What was taken; None without a path or with an empty `pretrain_choice`.

    Raises:
        InputError: the file cannot be read, see `read_third_party_weights`, or has nothing for the backbone.
    """
    model = experiment.model
    if not model.pretrained_model_path or not model.pretrain_choice:
        return None
    path = ensure_local_file(model.pretrained_model_path)
    tensors, rows = _read(path, find_passphrase(experiment))
    weights = to_reid_tune_keys(tensors)
    parts: tuple[str, ...] = (_BACKBONE,)
    if model.pretrain_choice == "self":
        parts += ("pooling.", "projection.", "neck.")
        if rows == list(identities):
            parts += ("classifier.",)
    taken = {name: tensor for name, tensor in weights.items() if name.startswith(parts)}
    matched = load_weights(network, taken, hw_ratio=1.0 if parts == (_BACKBONE,) else model.pretrain_hw_ratio)
    wanted = [name for name in network.state_dict() if name.startswith(parts)]
    backbone = [name for name in wanted if name.startswith(_BACKBONE)]
    loaded = matched.loaded + matched.resized
    if not any(name.startswith(_BACKBONE) for name in loaded):
        raise InputError(
            f"model.pretrained_model_path = {path}: nothing in it fits model.backbone = {model.backbone!r}: "
            f"its tensors are called {_first(tensors)}, the network's {_first(backbone)}."
        )
    odd = [name for name in matched.unused if name.startswith(_BACKBONE) and not _HEAD.search(name)]
    filled = sum(name.startswith(_BACKBONE) for name in loaded)
    if filled < _ENOUGH * len([name for name in backbone if not is_optional(name)]) or len(odd) > filled / 10:
        raise InputError(
            f"model.pretrained_model_path = {path}: it fills {filled} of {len(backbone)} tensors of model.backbone = "
            f"{model.backbone!r} and has {len(odd)} others ({_shortened(odd) or 'none'}): it is of another network."
        )
    return LoadedWeights(
        path=path,
        sha256=_digest(path),
        backbone=len(backbone),
        loaded=loaded,
        resized=matched.resized,
        left=(*matched.unused, *(name for name in weights if name not in taken)),
        untrained=tuple(name for name in wanted if name not in loaded and not is_optional(name)),
    )


def _read(path: Path, key: str | None) -> tuple[dict[str, Tensor], list[int] | None]:
    """A file's tensors by their own names, and the identities of its classifier's rows if it says them."""
    if not is_encrypted_file(path):
        content = read_third_party_weights(path)
        if not str(content.get("format")).startswith("reid-tune "):
            return extract_tensors(content), None
    checkpoint = load_checkpoint(path, key)
    return checkpoint.model, checkpoint.identities


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first(names: Sequence[str] | dict[str, Tensor]) -> str:
    return ", ".join(list(names)[:3]) or "nothing"


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
