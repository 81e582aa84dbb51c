"""Damage for the fuzz tests, the number of their inputs, and the limits of one input.

`REID_TUNE_FUZZ=100000` is the number of inputs of all fuzz tests together, about; each test has its share. Without it,
as in `make test`, the inputs are few and always the same.
"""

import os
import random
import resource
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import display_text

SHORT_INPUTS = 3_000  # of all tests together, about
LIMIT_CPU_S = 10  # of one input; most take milliseconds
LIMIT_KIB = 1 << 20  # by which one input may raise the peak of the process's memory

HIDDEN = (DeprecationWarning, PendingDeprecationWarning)  # by default Python shows them to nobody
ERRORS = (InputError, InfrastructureError)

seeds = st.integers(0, 2**32)


def fuzz(count: int) -> settings:
    """Settings of a test that has this number of inputs in the short form, and as many times more in a longer one."""
    inputs = os.environ.get("REID_TUNE_FUZZ")
    return settings(
        max_examples=max(1, count * int(inputs or SHORT_INPUTS) // SHORT_INPUTS),
        derandomize=inputs is None,
        database=None,
        print_blob=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class OutOfTime(BaseException):
    """An input has used its CPU time; the product does not catch it as an Exception."""


def _end_input(*_: object) -> None:
    raise OutOfTime(f"one input takes more than {LIMIT_CPU_S} s of CPU time")


def check_message(text: str, subject: object = "", lines: int = 1) -> None:
    """Require a message of short lines, as the command prints it, that names its subject."""
    shown = display_text(text).split("\n")
    assert text.strip() and len(shown) <= lines and max(map(len, shown)) < 1000, ascii(text)[:2000]
    assert str(subject) in text, ascii(text)[:2000]


@contextmanager
def one_input(subject: object = "", lines: int = 1, errors: tuple[type[Exception], ...] = ERRORS) -> Iterator[None]:
    """Run the block within the limits and without a library's warning; only a good message may end it early.

    Args:
        subject: File or other text that a message must name.
        lines: Lines that a message may have.
        errors: Allowed errors.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handler = signal.signal(signal.SIGPROF, _end_input)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_CPU_S)
    try:
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", module=r"PIL\.")  # as in reid_tune.data.image_file
            yield
    except errors as error:
        check_message(str(error), subject, lines)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    texts = [str(warning.message) for warning in shown if not issubclass(warning.category, HIDDEN)]
    assert not texts, texts
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert growth < LIMIT_KIB, f"one input takes {growth >> 10} MiB"


EXTREMES = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x80\0\0\0"]


def flip(content: bytearray, at: int, draw: random.Random) -> None:
    content[at] ^= 1 << draw.randrange(8)


def overwrite(content: bytearray, at: int, draw: random.Random) -> None:
    content[at] = draw.randrange(256)


def write_extreme(content: bytearray, at: int, draw: random.Random) -> None:
    content[at : at + 4] = draw.choice(EXTREMES)


def zero(content: bytearray, at: int, draw: random.Random) -> None:
    length = min(draw.choice([1, 8, 64, 512]), len(content) - at)
    content[at : at + length] = bytes(length)


def remove(content: bytearray, at: int, draw: random.Random) -> None:
    del content[at : at + draw.choice([1, draw.randrange(1, 64)])]


def repeat(content: bytearray, at: int, draw: random.Random) -> None:
    content[at:at] = content[at : at + draw.randrange(1, 64)] * draw.randrange(1, 4)


def insert(content: bytearray, at: int, draw: random.Random) -> None:
    content[at:at] = draw.randbytes(draw.choice([1, 8]))


def swap(content: bytearray, at: int, draw: random.Random) -> None:
    """Exchange two neighbouring blocks."""
    length = draw.choice([1, 8, 64])
    content[at : at + 2 * length] = content[at + length : at + 2 * length] + content[at : at + length]


def cut(content: bytearray, at: int, draw: random.Random) -> None:
    del content[at:]


MUTATIONS: Sequence[Callable[[bytearray, int, random.Random], None]] = (
    *[flip, overwrite, write_extreme] * 4,
    *[zero, remove, repeat, insert, swap],
    cut,
)


def mutate(content: bytes, seed: int, *, start: int = 0) -> bytes:
    """Return a file with one to eight kinds of damage.

    Args:
        content: The file.
        seed: Number that decides the damage.
        start: Number of bytes that stay, such as those by which a kind of file is known.
    """
    draw, result = random.Random(seed), bytearray(content[start:])
    for _ in range(draw.choice([1, 1, 2, 3, 8])):
        if result:
            # Headers are at the start of most formats, and at the end of a zip archive and of a TIFF.
            at = draw.randrange(draw.choice([min(64, len(result)), len(result)]))
            draw.choice(MUTATIONS)(result, at if draw.random() < 0.7 else len(result) - 1 - at, draw)
    return content[:start] + bytes(result)


_scalars = st.one_of(
    st.sampled_from(
        [None, True, False, 0, -1, 2**31, 2**63, 10**30, 1e308, float("inf"), float("nan"), "", "0", "1e9"]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=6,
)
deep_json = st.sampled_from([opening * 12_000 for opening in ("[", '{"a":', "[[],")])  # as text


def nested_paths(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in nested dictionaries and lists, that of the whole first."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(below for key, value in items for below in nested_paths(value, (*path, key)))]


REMOVED: Any = object()


@st.composite
def changed_json(draw: st.DrawFn, content: Any) -> Any:
    """Plain data in which one to three values are replaced or removed."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(nested_paths(content)))
        content = _with_value(content, path, draw(st.one_of(st.just(REMOVED), json_values, json_values)))
    return None if content is REMOVED else content


def _with_value(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy in which the value of a path is another one, or is missing."""
    if not path:
        return value
    items = content.items() if isinstance(content, dict) else enumerate(content)
    changed = {key: _with_value(item, path[1:], value) if key == path[0] else item for key, item in items}
    changed = {key: item for key, item in changed.items() if item is not REMOVED}
    return changed if isinstance(content, dict) else list(changed.values())
