"""Naming schemes of backbones in other tools' weight files, as mappings to timm's names."""

import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

__all__ = ["translations"]

_Tensors = dict[str, Tensor]

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
# Vision transformers of CLIP and torchvision.
_VIT = (
    (re.compile(r"^(?:transformer\.resblocks|encoder\.layers)\.(?:encoder_layer_)?(\d+)\."), r"blocks.\1."),
    (re.compile(r"^(?:conv1|conv_proj)\."), "patch_embed.proj."),
    (re.compile(r"^(?:positional_embedding|encoder\.pos_embedding)$"), "pos_embed"),
    (re.compile(r"^(?:class_embedding|class_token)$"), "cls_token"),
    (re.compile(r"^ln_pre\."), "norm_pre."),
    (re.compile(r"^(?:ln_post|encoder\.ln)\."), "norm."),
    (re.compile(r"\.ln_(\d)\."), r".norm\1."),
    (re.compile(r"\.(?:attn|self_attention)\.in_proj_(\w+)$"), r".attn.qkv.\1"),
    (re.compile(r"\.(?:attn|self_attention)\.out_proj\."), ".attn.proj."),
    (re.compile(r"\.mlp\.(?:c_fc|0|linear_1)\."), ".mlp.fc1."),
    (re.compile(r"\.mlp\.(?:c_proj|3|linear_2)\."), ".mlp.fc2."),
)
_VIT_ATTENTION = re.compile(r"\.(?:attn|self_attention)\.in_proj_weight$")
_TOKENS = {"pos_embed", "cls_token"}  # with a leading axis of 1 in timm


def translations(tensors: Mapping[str, Tensor], children: Sequence[str]) -> list[_Tensors]:
    """Return the tensors by timm's names, once for each naming scheme that their names may follow.

    The first is the tensors as they are: timm and torchvision's ResNets. The others are the numbered children of a
    `nn.Sequential`, the Swins of Microsoft and of mmdet, and the vision transformers of CLIP and torchvision.

    Args:
        tensors: Tensors of a backbone by their names in the file, without a prefix.
        children: Names of the network's direct submodules, in their order.
    """
    results = [dict(tensors)]
    for applies, translate in _schemes(children):
        if any(map(applies, tensors)):
            results.append(translate(results[0]))
    return results


def _schemes(children: Sequence[str]) -> list[tuple[Callable[[str], object], Callable[[_Tensors], _Tensors]]]:
    """Return, for each scheme, whether a name shows that it applies, and its mapping."""

    def name_children(tensors: _Tensors) -> _Tensors:
        return {_named_child(name, children): tensor for name, tensor in tensors.items()}

    return [
        (lambda name: name.startswith("0."), name_children),
        (lambda name: name.startswith("layers.0.downsample."), _map_microsoft_swin),
        (_MMDET_BLOCK.match, _map_mmdet_swin),
        (_VIT_ATTENTION.search, _map_vit),
    ]


def _named_child(name: str, children: Sequence[str]) -> str:
    number, _, suffix = name.partition(".")
    return f"{children[int(number)]}.{suffix}" if number.isdecimal() and int(number) < len(children) else name


def _map_microsoft_swin(tensors: _Tensors) -> _Tensors:
    return {_next_stage(name): tensor for name, tensor in tensors.items()}


def _map_mmdet_swin(tensors: _Tensors) -> _Tensors:
    """Map mmdet's names, where the norm of the last stage has a number and patches are merged channel first."""
    last = max(int(match[1]) for name in tensors if (match := _MMDET_BLOCK.match(name)))
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith((f"semantic_embed_w.{last}.", f"semantic_embed_b.{last}.")):
            continue  # computed by mmdet after the last stage, and not used
        if name.startswith("stages.") and ".downsample." in name:
            tensor = _reorder_merging(tensor)
        name = re.sub(rf"^norm{last}\.", "norm.", name)
        renamed[_next_stage(_substitute(name, _MMDET))] = tensor
    return renamed


def _map_vit(tensors: _Tensors) -> _Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        name = _substitute(name, _VIT)
        if name in _TOKENS:
            tensor = tensor.reshape(1, -1, tensor.shape[-1])
        renamed[name] = tensor
    return renamed


def _substitute(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def _next_stage(name: str) -> str:
    """Move the merging of patches to the next stage: timm counts it to the stage after it, others to the one before."""
    return re.sub(r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample.", name)


def _reorder_merging(merging: Tensor) -> Tensor:
    """Reorder the last axis (4C) from torch.nn.Unfold's (channel, row, column) to timm's (column, row, channel)."""
    if merging.ndim == 0 or merging.shape[-1] % 4:
        return merging
    return merging.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3).contiguous()
