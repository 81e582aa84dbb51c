"""Search for a network's tensors in a weight file, whatever its wrappers and prefixes are called."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from reid_tune.checkpoints.file_tensors import FileTensor, flatten_tensors
from reid_tune.checkpoints.head_search import find_heads
from reid_tune.checkpoints.third_party_keys import translations
from reid_tune.files import display_name

__all__ = ["NetworkKeys", "WeightMatch", "find_weights", "network_keys"]

_PARTS = ("backbone.", "pooling.", "projection.", "neck.", "classifier.")  # of reid-tune's network
_GROUP_SHARE = 0.2  # of the backbone's tensors that the tensors below a prefix must number to be translated
_EQUAL_SHARE = 0.95  # of the best prefix's fitting tensors from which another prefix fits as well
_WHOLE_SHARE = 0.5  # of the backbone's tensors below which no other prefix is compared with the best
_LIKELY = 4  # prefixes with the most matching names, which are examined even if they have few tensors
# Words in a prefix that tell which of several equal networks is used after their training. DINO evaluates the teacher
# and timm the moving average, but MoCo the encoder that is trained.
_AVERAGED = {"averaged", "ema", "swa", "teacher"}
_COPIES = {"k", "key", "momentum", "student", "target"}


@dataclass(frozen=True)
class NetworkKeys:
    """Names and shapes of a network's tensors.

    Attributes:
        shapes: Shape of each of the backbone's tensors by timm's name.
        children: Names of the backbone's direct submodules, in their order.
        neck: Dimension of the neck; None without one.
    """

    shapes: Mapping[str, Sequence[int]]
    children: tuple[str, ...]
    neck: int | None = None


@dataclass(frozen=True)
class WeightMatch:
    """A network's tensors in a file.

    Attributes:
        tensors: Tensors of the file by the names of reid-tune's network: `backbone.`, `projection.`, `neck.`,
            `pooling.` and `classifier.`. Other tensors of the same dictionary have their names in the file, with
            `other.` in front where such a name would be mistaken for one of these.
        location: Text that names the place of the backbone in the file; empty for its top level without a prefix.
        fitting: Number of the backbone's tensors that the file has in the same shape.
        named: Number of the backbone's tensors whose names the file has.
        remarks: Sentences about other places in the file that fit as well, and about the place of the neck.
    """

    tensors: dict[str, Tensor]
    location: str = ""
    fitting: int = 0
    named: int = 0
    remarks: tuple[str, ...] = ()


@dataclass
class _Group:
    """Tensors below a prefix, by timm's names."""

    prefix: tuple[str, ...]
    location: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    fitting: int = 0
    named: int = 0


def network_keys(network: nn.Module) -> NetworkKeys:
    """Return the names and shapes of a ReID network, or of a backbone of timm."""
    backbone = getattr(network, "backbone", network)
    neck = getattr(network, "neck", None)
    return NetworkKeys(
        {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()},
        tuple(name for name, _ in backbone.named_children()),
        neck.num_features if isinstance(neck, nn.BatchNorm1d) else None,
    )


def find_weights(content: Any, network: NetworkKeys) -> WeightMatch:
    """Return the tensors of a file by the names of reid-tune's network.

    The backbone is the part of the file below one prefix that has most of the network's names with their shapes. The
    prefix may span wrappers (`state_dict`, `net`) and parts of the names (`module.encoder_q.`, `image_encoder.`).
    Several naming schemes are tried, see `translations`. The heads are searched next to the backbone, and above it.

    Args:
        content: Nested dictionaries of a file.
        network: Names and shapes of the network.
    """
    entries = flatten_tensors(content)
    groups = _ranked_groups(entries, network)
    if not groups:
        return WeightMatch({entry.full_name: entry.tensor for entry in entries})
    best = groups[0]
    heads, used, neck_place = find_heads(entries, best.prefix, network.shapes, network.neck)
    members = [entry for entry in entries if entry.is_below(best.prefix)]
    used_inside = {".".join(entry.path[len(best.prefix) :]) for entry in members if entry.full_name in used}
    backbone = {f"backbone.{name}": tensor for name, tensor in best.tensors.items() if name not in used_inside}
    others = {
        f"other.{entry.name}" if entry.name.startswith(_PARTS) else entry.name: entry.tensor
        for entry in entries
        if entry.keys == members[0].keys and not entry.is_below(best.prefix) and entry.full_name not in used
    }
    remarks = [_remark(best, other) for other in groups[1:]]
    if neck_place is not None:
        remarks.append(f"the neck is '{display_name(neck_place)}', the only batch norm of its dimension there")
    return WeightMatch({**others, **backbone, **heads}, best.location, best.fitting, best.named, tuple(remarks))


def _ranked_groups(entries: list[FileTensor], network: NetworkKeys) -> list[_Group]:
    """Return the groups that fit the backbone about equally well, the preferred one first."""
    sizes = Counter(entry.path[:length] for entry in entries for length in range(len(entry.path)))
    matches = Counter(
        entry.path[:length]
        for entry in entries
        for length in range(len(entry.path))
        if ".".join(entry.path[length:]) in network.shapes
    )
    large = [prefix for prefix, size in sizes.items() if size >= max(1, _GROUP_SHARE * len(network.shapes))]
    groups = [
        _group(entries, prefix, network) for prefix in dict.fromkeys([*dict(matches.most_common(_LIKELY)), *large])
    ]
    groups = [group for group in groups if group.named]
    if not groups:
        return []
    best = max(groups, key=lambda group: (group.fitting, group.named, -_preference(group.prefix)))
    if best.fitting < _WHOLE_SHARE * len(network.shapes):
        return [best]
    others = [group for group in groups if group is not best and group.fitting >= _EQUAL_SHARE * best.fitting]
    equal = [best, *(group for group in others if not _are_equal(group.tensors, best.tensors))]
    return sorted(equal, key=lambda group: (_preference(group.prefix), -group.fitting, groups.index(group)))


def _group(entries: list[FileTensor], prefix: tuple[str, ...], network: NetworkKeys) -> _Group:
    """Return the tensors below a prefix by the naming scheme that fits best."""
    members = [entry for entry in entries if entry.is_below(prefix)]
    tensors = {".".join(entry.path[len(prefix) :]): entry.tensor for entry in members}
    group = _Group(prefix, _describe_location(members[0], prefix))
    for translated in translations(tensors, network.children):
        names = [name for name in translated if name in network.shapes]
        fitting = sum(tuple(translated[name].shape) == tuple(network.shapes[name]) for name in names)
        if not group.tensors or (fitting, len(names)) > (group.fitting, group.named):
            group.tensors, group.fitting, group.named = translated, fitting, len(names)
    return group


def _describe_location(entry: FileTensor, prefix: tuple[str, ...]) -> str:
    """Return the wrapper and the prefix of a group, from one of its tensors."""
    depth = len(entry.path) - len(FileTensor((), entry.name, entry.tensor).path)  # of the keys around the tensor
    parts = [f"'{'.'.join(prefix[:depth])}'"] if prefix[:depth] else []
    if len(prefix) > depth:
        suffix = ".".join(entry.path[len(prefix) :])
        written = entry.name.removesuffix(suffix)
        parts.append(f"prefix '{written if written != entry.name else '.'.join(prefix[depth:]) + '.'}'")
    return display_name(", ".join(parts))


def _preference(prefix: tuple[str, ...]) -> int:
    words = set(re.split(r"[._]", ".".join(prefix).lower()))
    return 0 if words & _AVERAGED else 2 if words & _COPIES else 1


def _are_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def _remark(chosen: _Group, other: _Group) -> str:
    chosen_place, other_place = chosen.location or "the top level", other.location or "the top level"
    if _preference(chosen.prefix) == _preference(other.prefix):
        return (
            f"warning: {other_place} fits equally well, and {chosen_place} comes first in the file: to start from the "
            "other, write it alone into a file"
        )
    reason = "the averaged weights" if _preference(chosen.prefix) == 0 else "the trained weights, not a copy of them"
    return f"{other_place} fits as well; {chosen_place} is taken: {reason}"
