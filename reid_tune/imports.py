"""Imports of large libraries in less time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quick_imports"]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import within the block without the collection of garbage, and never search the objects of this process again.

    An import makes hundreds of thousands of objects that stay. To search them for garbage again and again takes a
    quarter of the time of all imports of a sweep, and most of the time in which its log is read.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()
