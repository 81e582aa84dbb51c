"""Half precision: conversion of an ONNX graph, and the rounding that any such conversion causes."""

import copy
from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reid_tune.modeling.network import ReIDNet

__all__ = ["round_to_fp16", "to_fp16"]

# Sums of squares leave the range of half precision long before their root does.
_FLOAT32_OPERATORS = ("ReduceL2", "ReduceSumSquare")


def to_fp16(model: Any) -> Any:
    """Return a float32 graph with weights and arithmetic in half precision; its input and output stay float32.

    onnxruntime computes such a graph in half precision on a GPU, and in float32, from rounded weights, on a CPU.

    Args:
        model: An onnx.ModelProto, left as it is.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked = [*DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPERATORS]
    converted = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    _sort_topologically(converted.graph.node)
    return converted


def round_to_fp16(network: ReIDNet) -> Callable[[Tensor], Tensor]:
    """Return the network with each weight and result rounded to half precision.

    A correct program in half precision may differ from the network by as much as this does. Values above 65,504 become
    infinite. Values inside one function of torch, such as an attention, are not rounded.

    Returns:
        A function of images [batch, C, H, W].
    """
    rounded_network = copy.deepcopy(network).half().float()

    def embed(images: Tensor) -> Tensor:
        with _RoundResults():
            return rounded_network(images.half().float())

    return embed


class _RoundResults(TorchFunctionMode):
    """Rounds the float32 result of every function of torch."""

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.half().float() if isinstance(result, Tensor) and result.dtype == torch.float32 else result


def _sort_topologically(nodes: Any) -> None:
    """Put the converter's casts, which it leaves at the end, before the nodes that use them."""
    producers = {name: node.output[0] for node in nodes for name in node.output}
    inputs = {node.output[0]: [producers[name] for name in node.input if name in producers] for node in nodes}
    positions = {name: index for index, name in enumerate(TopologicalSorter(inputs).static_order())}
    nodes.sort(key=lambda node: positions[node.output[0]])
