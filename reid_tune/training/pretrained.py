"""Pretrained weights of a network before its training."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from reid_tune.checkpoints.file_tensors import describe_content, describe_shape
from reid_tune.checkpoints.weight_search import WeightMatch, find_weights, network_keys
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.config.model import pretrained_choice
from reid_tune.errors import InputError
from reid_tune.modeling.network import ReIDNet
from reid_tune.modeling.weights import LoadReport, is_optional, load_weights
from reid_tune.storage.download_cache import ensure_local_file
from reid_tune.training.loaded_weights import LoadedWeights, backbone_names, shorten
from reid_tune.training.nearest_networks import suggest_networks
from reid_tune.training.weights_file import read_weights_file

__all__ = ["load_pretrained"]

_BACKBONE, _HEADS = "backbone.", ("pooling.", "projection.", "neck.")
# A file belongs to another network if it fills less of the backbone, or has more unknown tensors than this share.
_MIN_FILLED, _MAX_UNKNOWN = 0.9, 0.1
# An instance norm is in too few layers for these shares to tell a network with it from one without.
_INSTANCE_NORM = ".IN."
_HEAD = re.compile(r"^backbone\.(fc|head|head_dist|classifier|norm\d)\.")


def load_pretrained(network: ReIDNet, experiment: Experiment, identities: Sequence[int]) -> LoadedWeights | None:
    """Copy the weights of `model.pretrained_model_path` into a network before its training.

    With `pretrain_choice: imagenet` the backbone is loaded, with `self` everything that fits; of an empty one see
    `pretrained_choice`. The classifier is loaded only from a checkpoint of reid-tune with the same identities in the
    same order.

    Args:
        network: Network whose weights are replaced.
        experiment: The spec.
        identities: Identity of each row of the network's classifier.

    Returns:
        The loaded weights; None if nothing is to be loaded.

    Raises:
        InputError: The file cannot be read, see `read_third_party_weights`, or does not fit the backbone.
    """
    model = experiment.model
    if not (choice := pretrained_choice(model)) or not model.pretrained_model_path:
        return None
    path = ensure_local_file(model.pretrained_model_path)
    content, checkpoint = read_weights_file(path, find_passphrase(experiment))
    match = WeightMatch(content) if checkpoint else find_weights(content, network_keys(network))
    parts = (_BACKBONE, *(_HEADS if choice == "self" else ()))
    if choice == "self" and checkpoint and checkpoint.identities == list(identities):
        parts += ("classifier.",)
    selected = {name: tensor for name, tensor in match.tensors.items() if name.startswith(parts)}
    report = load_weights(network, selected, hw_ratio=1.0 if parts == (_BACKBONE,) else model.pretrain_hw_ratio)
    reshaped = _describe_reshaped(network, report, selected)
    _check_backbone(network, report, content, reshaped, f"model.pretrained_model_path = {path}", model.backbone)
    expected = [name for name in network.state_dict() if name.startswith(parts)]
    return LoadedWeights(
        path=path,
        sha256=_digest(path),
        location=match.location,
        backbone=len(backbone_names(expected)),
        loaded=report.loaded + report.resized,
        resized=report.resized,
        unused=(*report.unused, *(name for name in match.tensors if name not in selected)),
        untrained=tuple(name for name in expected if name in report.missing and not is_optional(name)),
        reshaped=reshaped,
        remarks=match.remarks,
        images=checkpoint.images if checkpoint else None,
    )


def _describe_reshaped(network: ReIDNet, report: LoadReport, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names that file and network have with different shapes, with both shapes."""
    state = network.state_dict()
    return tuple(
        f"{name} ({describe_shape(tensors[name])} in the file, {describe_shape(state[name])} in the network)"
        for name in report.unused
        if name in state
    )


def _check_backbone(
    network: ReIDNet, report: LoadReport, content: Mapping[str, Any], reshaped: tuple[str, ...], setting: str, name: str
) -> None:
    """Check that a file fills most of the backbone, has few other tensors for its modules, and its instance norms.

    Args:
        network: Network that was filled.
        report: Report of `load_weights`.
        content: Content of the file.
        reshaped: Result of `_describe_reshaped`.
        setting: Key and value of the spec, for the message.
        name: Name of the backbone, for the message.

    Raises:
        InputError: The file belongs to another network.
    """
    expected = backbone_names(network.state_dict())
    filled = backbone_names(report.loaded + report.resized)
    modules = {name.split(".")[1] for name in expected}
    unknown = [
        name for name in backbone_names(report.unused) if not _HEAD.search(name) and name.split(".")[1] in modules
    ]
    lacks_norms = any(_INSTANCE_NORM in name for name in backbone_names(report.missing))
    required_filled = _count_required(filled)
    if (
        not lacks_norms
        and not any(_INSTANCE_NORM in name for name in unknown)
        and required_filled >= _MIN_FILLED * _count_required(expected)
        and _count_required(unknown) <= _MAX_UNKNOWN * required_filled
    ):
        return
    problem = f"it fills {len(filled)} of {len(expected)} tensors of model.backbone = {name!r}"
    if filled and lacks_norms:
        problem += " and lacks its instance norms"
    if filled and unknown:
        problem += f" and has {len(unknown)} others ({shorten(unknown)})"
    if reshaped:
        problem += f"; of unequal shape: {shorten(reshaped)}"
    if not filled:
        problem = f"nothing in it fits model.backbone = {name!r}; " + (
            f"of unequal shape: {shorten(reshaped)}" if reshaped else f"the network's tensors are {_first(expected)}"
        )
        problem += f"; {describe_content(content)}"
    raise InputError(f"{setting}: {problem}: it is of another network; {suggest_networks(content)}.")


def _count_required(names: Iterable[str]) -> int:
    return sum(not is_optional(name) for name in names)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:3]) or "none"
