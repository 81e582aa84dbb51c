"""Names and orders of weights in other tools' files, turned into those of our network."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["to_reid_tune_keys", "extract_tensors"]

# Where files keep the weights, in the order in which they are preferred.
_WRAPPERS = ("teacher", "state_dict", "model_state_dict", "model", "student")
_PREFIXES = frozenset({"module", "model", "_orig_mod", "backbone", "base"})
# The heads of TAO and SOLIDER-REID, and ours.
_PARTS = {
    "bottleneck": "neck",
    "fcneck": "projection",
    "classifier": "classifier",
    "neck": "neck",
    "pooling": "pooling",
    "projection": "projection",
}
_MMDET = (
    (re.compile(r"^stages\."), "layers."),
    (re.compile(r"^patch_embed\.projection\."), "patch_embed.proj."),
    (re.compile(r"\.attn\.w_msa\."), ".attn."),
    (re.compile(r"\.ffn\.layers\.0\.0\."), ".mlp.fc1."),
    (re.compile(r"\.ffn\.layers\.1\."), ".mlp.fc2."),
    (re.compile(r"^semantic_embed_w\.(\d+)\."), r"layers.\1.downsample.semantic_scale."),
    (re.compile(r"^semantic_embed_b\.(\d+)\."), r"layers.\1.downsample.semantic_shift."),
)
_MMDET_BLOCK = re.compile(r"^stages\.(\d+)\.blocks\.\d+\.attn\.w_msa\.")


def extract_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a file's content by their own names, from under `teacher`, `state_dict`, `model` or bare."""
    for _ in _WRAPPERS:
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}


def to_reid_tune_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by our network's names: `backbone.` and timm's name, `pooling.`, `projection.`, `neck.`, `classifier.`.

    Known are the layouts of timm, torchvision's ResNets, the Swins of Microsoft and of mmdet and SOLIDER, the whole
    networks of TAO and SOLIDER-REID, and ours. Weights beside a backbone that are none of these parts keep their names.
    """
    split = {name: _split(name) for name in tensors}
    bare = not any(inside for inside, _ in split.values())
    ours: dict[str, Tensor] = {}
    backbone: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        inside, own = split[name]
        part, _, rest = own.partition(".")
        if inside and part == "feature":
            # TAO's ResNet projects its last map by a convolution of 1 x 1.
            ours[f"projection.{rest}"] = tensor.flatten(1) if tensor.ndim == 4 else tensor
        elif not inside and part in _PARTS:
            ours[f"{_PARTS[part]}.{rest}"] = tensor
        elif inside or bare:
            backbone[own] = tensor
        else:
            ours[own] = tensor
    return {**{f"backbone.{name}": tensor for name, tensor in _timm(backbone).items()}, **ours}


def _split(name: str) -> tuple[bool, str]:
    """Whether a prefix says that the weight is the backbone's, and the name without prefixes."""
    inside = False
    while (part := name.partition("."))[0] in _PREFIXES and part[2]:
        inside |= part[0] in ("backbone", "base")
        name = part[2]
    return inside, name


def _timm(backbone: dict[str, Tensor]) -> dict[str, Tensor]:
    if stages := [int(found[1]) for name in backbone if (found := _MMDET_BLOCK.match(name))]:
        return _swin_of_mmdet(backbone, last=max(stages))
    if any(name.startswith("layers.0.downsample.") for name in backbone):
        return {_next_stage(name): tensor for name, tensor in backbone.items()}
    return backbone


def _swin_of_mmdet(backbone: dict[str, Tensor], last: int) -> dict[str, Tensor]:
    """mmdet's names; the norm of its last stage is numbered, and it merges patches by channel first."""
    renamed = {}
    for name, tensor in backbone.items():
        if name.startswith((f"semantic_embed_w.{last}.", f"semantic_embed_b.{last}.")):
            continue  # Computed there behind the last stage, and not used.
        if name.startswith("stages.") and ".downsample." in name:
            tensor = _by_neighbour(tensor)
        name = re.sub(rf"^norm{last}\.", "norm.", name)
        for pattern, replacement in _MMDET:
            name = pattern.sub(replacement, name)
        renamed[_next_stage(name)] = tensor
    return renamed


def _next_stage(name: str) -> str:
    """timm counts the merging of patches to the stage behind it, the others to the stage before it."""
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) + 1}.downsample.", name)


def _by_neighbour(merging: Tensor) -> Tensor:
    """Reorder the last axis, 4C: from torch.nn.Unfold's (channel, row, column) to timm's (column, row, channel)."""
    if merging.ndim == 0 or merging.shape[-1] % 4:
        return merging
    return merging.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3).contiguous()
