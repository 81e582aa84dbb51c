"""Pretrained weights of a network before its training."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from reid_tune.checkpoints.checkpoint import is_encrypted_file, load_checkpoint
from reid_tune.checkpoints.third_party_file import read_third_party_weights
from reid_tune.checkpoints.third_party_keys import extract_tensors, to_reid_tune_keys
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.modeling.network import ReIDNet
from reid_tune.modeling.weights import LoadReport, is_optional, load_weights
from reid_tune.storage.download_cache import ensure_local_file

__all__ = ["LoadedWeights", "load_pretrained"]

_BACKBONE = "backbone."
_MAX_NAMES = 4  # names of tensors in a message
# A file belongs to another network if it fills less of the backbone, or has more unknown tensors than this share.
_MIN_FILLED, _MAX_UNKNOWN = 0.9, 0.1
_HEAD = re.compile(r"^backbone\.(fc|head|head_dist|classifier|norm\d)\.")


@dataclass(frozen=True)
class LoadedWeights:
    """Weights that were loaded from a file; `str` is the report for the user.

    Attributes:
        path: Path of the file.
        sha256: Digest of the file, in hexadecimal.
        backbone: Number of tensors of the network's backbone.
        loaded: Names of the network's tensors that were loaded from the file, the resized ones included.
        resized: Names of the loaded tensors that were fitted to another input or window size.
        unused: Names of the file's tensors that were not loaded, in the network's naming.
        untrained: Names of the network's tensors that were to be loaded, but are absent from the file or have another
            shape there.
    """

    path: Path
    sha256: str
    backbone: int
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    unused: tuple[str, ...]
    untrained: tuple[str, ...]

    def __str__(self) -> str:
        in_backbone = len(_backbone_names(self.loaded))
        others = f" and {len(self.loaded) - in_backbone} others" if len(self.loaded) > in_backbone else ""
        lines = [
            f"pretrained weights: {self.path} (sha256 {self.sha256})",
            f"  loaded {in_backbone} of the backbone's {self.backbone} tensors{others}",
        ]
        if self.resized:
            lines.append(f"  resized: {_shortened(self.resized)}")
        if self.unused:
            lines.append(f"  not used: {_shortened(self.unused)}")
        if self.untrained:
            warning = "warning: " if _backbone_names(self.untrained) else ""
            lines.append(f"  {warning}absent or of another shape, so untrained: {_shortened(self.untrained)}")
        return "\n".join(lines)


def load_pretrained(network: ReIDNet, experiment: Experiment, identities: Sequence[int]) -> LoadedWeights | None:
    """Copy the weights of `model.pretrained_model_path` into a network before its training.

    With `pretrain_choice: imagenet` the backbone is loaded, with `self` everything that fits. The classifier is loaded
    only from a checkpoint of reid-tune with the same identities in the same order.

    Args:
        network: Network whose weights are replaced.
        experiment: The spec.
        identities: Identity of each row of the network's classifier.

    Returns:
        The loaded weights; None without a path or with an empty `pretrain_choice`.

    Raises:
        InputError: The file cannot be read, see `read_third_party_weights`, or does not fit the backbone.
    """
    model = experiment.model
    if not model.pretrained_model_path or not model.pretrain_choice:
        return None
    path = ensure_local_file(model.pretrained_model_path)
    tensors, file_identities = _read_tensors(path, find_passphrase(experiment))
    weights = to_reid_tune_keys(tensors)
    parts: tuple[str, ...] = (_BACKBONE,)
    if model.pretrain_choice == "self":
        parts += ("pooling.", "projection.", "neck.")
        if file_identities == list(identities):
            parts += ("classifier.",)
    selected = {name: tensor for name, tensor in weights.items() if name.startswith(parts)}
    report = load_weights(network, selected, hw_ratio=1.0 if parts == (_BACKBONE,) else model.pretrain_hw_ratio)
    _check_backbone(network, report, tensors, f"model.pretrained_model_path = {path}", model.backbone)
    loaded = report.loaded + report.resized
    expected = [name for name in network.state_dict() if name.startswith(parts)]
    return LoadedWeights(
        path=path,
        sha256=_digest(path),
        backbone=len(_backbone_names(expected)),
        loaded=loaded,
        resized=report.resized,
        unused=(*report.unused, *(name for name in weights if name not in selected)),
        untrained=tuple(name for name in expected if name not in loaded and not is_optional(name)),
    )


def _check_backbone(
    network: ReIDNet, report: LoadReport, tensors: dict[str, Tensor], setting: str, backbone: str
) -> None:
    """Check that a file fills most of the backbone and has few unknown tensors for it.

    Args:
        network: Network that was filled.
        report: Report of `load_weights`.
        tensors: Tensors of the file by their names in the file.
        setting: Key and value of the spec, for the message.
        backbone: Name of the backbone, for the message.

    Raises:
        InputError: The file belongs to another network.
    """
    expected = _backbone_names(network.state_dict())
    filled = len(_backbone_names(report.loaded + report.resized))
    if not filled:
        raise InputError(
            f"{setting}: nothing in it fits model.backbone = {backbone!r}: "
            f"its tensors are called {_first(tensors)}, the network's {_first(expected)}."
        )
    unknown = [name for name in _backbone_names(report.unused) if not _HEAD.search(name)]
    required = sum(not is_optional(name) for name in expected)
    if filled < _MIN_FILLED * required or len(unknown) > _MAX_UNKNOWN * filled:
        raise InputError(
            f"{setting}: it fills {filled} of {len(expected)} tensors of model.backbone = {backbone!r} and has "
            f"{len(unknown)} others ({_shortened(unknown) or 'none'}): it is of another network."
        )


def _backbone_names(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(_BACKBONE)]


def _read_tensors(path: Path, passphrase: str | None) -> tuple[dict[str, Tensor], list[int] | None]:
    """Return a file's tensors by their names in the file, and the identities of its classifier's rows, if known."""
    if not is_encrypted_file(path):
        content = read_third_party_weights(path)
        if not str(content.get("format")).startswith("reid-tune "):
            return extract_tensors(content), None
    checkpoint = load_checkpoint(path, passphrase)
    return checkpoint.model, checkpoint.identities


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:3]) or "nothing"


def _shortened(names: Sequence[str]) -> str:
    hidden = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {hidden} more" if hidden > 0 else "")
