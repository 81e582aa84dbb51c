"""A device that computes on the CPU and is as strict as a GPU: its tensors do not mix with those of the CPU."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from reid_tune.evaluation import parallel as threads

__all__ = ["OTHER", "Held", "other_device"]

OTHER = torch.device("meta")  # which, unlike a GPU, is on every machine
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default, aten._unsafe_index.Tensor}
# What PyTorch refuses on a GPU under deterministic algorithms, see torch.use_deterministic_algorithms.
REFUSED = {"put", "put_", "histc", "histogram", "kthvalue", "median", "nanmedian"}


class Held(Tensor):
    """A tensor of the other device."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "Held":
        held = Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(),
            dtype=values.dtype, device=OTHER,
        )  # fmt: skip
        held.values = values
        return held

    def tolist(self):
        return self.values.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _tensors(value) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _run(function, args, kwargs):
    """Compute on the CPU; refuse what a GPU refuses."""
    tensors = list(_tensors([*args, *kwargs.values()]))
    held = any(isinstance(value, Held) for value in tensors)
    name = function.overloadpacket.__name__
    if held and function not in COPIES:
        # From the CPU a GPU takes single numbers, and indices into its own tensors.
        strict = (
            [args[0], *args[2:]] if function in INDEXED and isinstance(args[0], Held) else [*args, *kwargs.values()]
        )
        mixed = [value for value in _tensors(strict) if not isinstance(value, Held) and value.dim()]
        assert not mixed, f"{function} mixes tensors of the CPU with those of another device"
        assert name not in REFUSED, f"{function} has no deterministic algorithm on a GPU"
        assert name != "bincount" or len(tensors) == 1, "bincount of weights has no deterministic algorithm on a GPU"
    target = kwargs.get("device", OTHER if held else None)
    target = torch.device(target) if target is not None else None
    kwargs = kwargs | ({"device": torch.device("cpu")} if "device" in kwargs else {})
    result = function(*tree_map(_plain, args), **tree_map(_plain, kwargs))
    if function is aten.copy_.default:
        return args[0]
    return tree_map(_hold, result) if target is not None and target.type == OTHER.type else result


def _plain(value):
    return value.values if isinstance(value, Held) else value


def _hold(value):
    return Held(value) if isinstance(value, Tensor) else value


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _AtOnce(Executor):
    """Runs in the calling thread: a mode is one thread's."""

    def __init__(self, *args: object, **options: object) -> None: ...

    def map(self, function, *iterables):
        return map(function, *iterables)


@contextmanager
def other_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Offer `OTHER`."""
    monkeypatch.setattr(threads, "ThreadPoolExecutor", _AtOnce)
    with _Mode():
        yield OTHER
