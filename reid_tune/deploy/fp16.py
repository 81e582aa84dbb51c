"""The conversion of an ONNX graph to half precision."""

from graphlib import TopologicalSorter
from typing import Any

__all__ = ["to_fp16"]

# Sums of squares leave the range of half precision long before their root does.
_FLOAT32 = ("ReduceL2", "ReduceSumSquare")


def to_fp16(model: Any) -> Any:
    """A float32 graph with weights and arithmetic in half precision; its input and output stay float32.

    onnxruntime computes it in half precision on a GPU, and in float32, from rounded weights, on a CPU.

    Args:
        model: An onnx.ModelProto, left as it is.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked = [*DEFAULT_OP_BLOCK_LIST, *_FLOAT32]
    converted = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    _sort(converted.graph.node)
    return converted


def _sort(nodes: Any) -> None:
    """Put the converter's casts, which it leaves at the end, before the nodes that use them."""
    makers = {name: node.output[0] for node in nodes for name in node.output}
    needs = {node.output[0]: [makers[name] for name in node.input if name in makers] for node in nodes}
    place = {name: index for index, name in enumerate(TopologicalSorter(needs).static_order())}
    nodes.sort(key=lambda node: place[node.output[0]])
