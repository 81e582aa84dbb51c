"""Mapping of the names and layouts of weights in other tools' files to those of reid-tune's network."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["extract_tensors", "to_reid_tune_keys"]

# Keys under which files store the weights, in order of preference.
_WRAPPERS = ("teacher", "state_dict", "model_state_dict", "model", "student")
_PREFIXES = frozenset({"module", "model", "_orig_mod", "backbone", "base"})
# Heads of TAO, SOLIDER-REID and reid-tune.
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
    """Return the tensors in a file's content by name: from its `teacher`, `state_dict` or `model`, or the top level."""
    for _ in _WRAPPERS:
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}


def to_reid_tune_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by the names of reid-tune's network.

    The names are `backbone.` with timm's name, `pooling.`, `projection.`, `neck.` and `classifier.`. Supported are
    the layouts of timm, torchvision's ResNets, the Swins of Microsoft, mmdet and SOLIDER, the whole networks of TAO
    and SOLIDER-REID, and reid-tune's. Weights next to a backbone that belong to none of these parts keep their names.
    """
    parsed = {name: _strip_prefixes(name) for name in tensors}
    is_bare_backbone = not any(in_backbone for in_backbone, _ in parsed.values())
    head: dict[str, Tensor] = {}
    backbone: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        in_backbone, stripped = parsed[name]
        part, _, suffix = stripped.partition(".")
        if in_backbone and part == "feature":
            # TAO's ResNet projects its last map by a convolution of 1 x 1.
            head[f"projection.{suffix}"] = tensor.flatten(1) if tensor.ndim == 4 else tensor
        elif not in_backbone and part in _PARTS:
            head[f"{_PARTS[part]}.{suffix}"] = tensor
        elif in_backbone or is_bare_backbone:
            backbone[stripped] = tensor
        else:
            head[stripped] = tensor
    return {**{f"backbone.{name}": tensor for name, tensor in _to_timm_keys(backbone).items()}, **head}


def _strip_prefixes(name: str) -> tuple[bool, str]:
    """Return whether a prefix says that the weight is the backbone's, and the name without prefixes."""
    in_backbone = False
    while (part := name.partition("."))[0] in _PREFIXES and part[2]:
        in_backbone |= part[0] in ("backbone", "base")
        name = part[2]
    return in_backbone, name


def _to_timm_keys(backbone: dict[str, Tensor]) -> dict[str, Tensor]:
    if stages := [int(match[1]) for name in backbone if (match := _MMDET_BLOCK.match(name))]:
        return _map_mmdet_swin(backbone, last=max(stages))
    if any(name.startswith("layers.0.downsample.") for name in backbone):
        return {_next_stage(name): tensor for name, tensor in backbone.items()}
    return backbone


def _map_mmdet_swin(backbone: dict[str, Tensor], last: int) -> dict[str, Tensor]:
    """Map mmdet's names, where the norm of the last stage has a number and patches are merged channel first."""
    renamed = {}
    for name, tensor in backbone.items():
        if name.startswith((f"semantic_embed_w.{last}.", f"semantic_embed_b.{last}.")):
            continue  # computed by mmdet after the last stage, and not used
        if name.startswith("stages.") and ".downsample." in name:
            tensor = _reorder_merging(tensor)
        name = re.sub(rf"^norm{last}\.", "norm.", name)
        for pattern, replacement in _MMDET:
            name = pattern.sub(replacement, name)
        renamed[_next_stage(name)] = tensor
    return renamed


def _next_stage(name: str) -> str:
    """Move the merging of patches to the next stage: timm counts it to the stage after it, others to the one before."""
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample.", name)


def _reorder_merging(merging: Tensor) -> Tensor:
    """Reorder the last axis (4C) from torch.nn.Unfold's (channel, row, column) to timm's (column, row, channel)."""
    if merging.ndim == 0 or merging.shape[-1] % 4:
        return merging
    return merging.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3).contiguous()
