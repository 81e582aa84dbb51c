"""Tensors of a weight file with their places in it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

__all__ = ["FileTensor", "describe_content", "describe_shape", "flatten_tensors"]

_MAX_DEPTH = 8  # of nested dictionaries
_MAX_KEYS, _MAX_TENSORS = 6, 3  # in a description


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a file.

    Attributes:
        keys: Keys of the dictionaries around it.
        name: Name in the innermost dictionary.
        tensor: The tensor.
    """

    keys: tuple[str, ...]
    name: str
    tensor: Tensor

    @property
    def full_name(self) -> str:
        """Keys and name, joined by dots."""
        return ".".join((*self.keys, self.name))

    @cached_property
    def path(self) -> tuple[str, ...]:
        """Parts of the full name, without those that PyTorch's compiler and wrappers add, such as `_orig_mod`."""
        parts = self.full_name.split(".")
        return (*(part for part in parts[:-1] if not part.startswith("_")), parts[-1])

    def is_below(self, prefix: tuple[str, ...]) -> bool:
        """Whether the path begins with these parts."""
        return self.path[: len(prefix)] == prefix


def flatten_tensors(content: Any) -> list[FileTensor]:
    """Return all tensors of nested dictionaries and lists, in their order."""
    return list(_walk(content, (), frozenset()))


def _walk(content: Any, keys: tuple[str, ...], parents: frozenset[int]) -> Iterator[FileTensor]:
    if id(content) in parents or len(keys) > _MAX_DEPTH:
        return
    for key, value in content.items() if isinstance(content, Mapping) else enumerate(content):
        if isinstance(value, Tensor):
            yield FileTensor(keys, str(key), value.detach())
        elif isinstance(value, Mapping | list | tuple):
            yield from _walk(value, (*keys, str(key)), parents | {id(content)})


def describe_content(content: Mapping[str, Any]) -> str:
    """Return the keys and the first tensors of a file in a sentence.

    Args:
        content: Nested dictionaries of the file.
    """
    entries = flatten_tensors(content)
    names = [_printable(str(key)) for key, value in content.items() if not isinstance(value, Tensor)]
    hidden = f" and {len(names) - _MAX_KEYS} more" if len(names) > _MAX_KEYS else ""
    keys = f"its keys are {', '.join(names[:_MAX_KEYS])}{hidden}, and " if names else ""
    if not entries:
        return f"{keys}it has no tensors"
    first = ", ".join(
        f"{_printable(entry.full_name)} ({describe_shape(entry.tensor)})" for entry in entries[:_MAX_TENSORS]
    )
    return f"{keys}its {len(entries)} tensors begin with {first}"


def describe_shape(tensor: Tensor) -> str:
    """Return a tensor's shape as text, such as 64x3x7x7."""
    return "x".join(map(str, tensor.shape)) or "a number"


def _printable(name: str) -> str:
    return repr(name)[1:-1][:120]
