"""Kill or stop a process at a named point of the product, or change its clock, without anything for it in the product.

Python imports this module at its start where the folder is on PYTHONPATH; Ray's workers inherit that. The variable
CHAOS_POINTS has points, separated by `;`. A point is

    VICTIM MOMENT MODULE:FUNCTION [NAME] [SIGNAL]

VICTIM is `driver` or `worker`, MOMENT is `before`, `within` or `after` the call (within: half of an event's line has
been written). NAME limits the point to calls with an argument of that name: the kind of an event, also followed by its
stage or run (`stage_done-search`), or the last part of a path; `*` is a wildcard. SIGNAL is `SIGKILL` by default. Each
point strikes once in all processes together: it leaves a file in the folder CHAOS_STRUCK.

The variable CHAOS_CLOCK names a file with the number of days by which the clock of Python differs from the machine's.
"""

import fnmatch
import functools
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Point:
    """A point, see the module; `text` is its text."""

    text: str
    victim: str
    moment: str
    module: str
    function: str
    name: str
    signal: signal.Signals


def file_name(text: str) -> str:
    """Return the name of the file that a point leaves when it strikes."""
    return text.replace("/", "-").replace(" ", "_")


def parse_point(text: str) -> Point:
    victim, moment, place, *options = text.split()
    number = signal.Signals[options.pop()] if options and options[-1].startswith("SIG") else signal.SIGKILL
    module, _, function = place.partition(":")
    return Point(text, victim, moment, module, function, options[0] if options else "", number)


def argument_names(arguments: Sequence[Any]) -> set[str]:
    """Return the names of events and paths among the arguments of a call."""
    names = set[str]()
    for argument in arguments:
        if isinstance(argument, (str, os.PathLike)):
            names.add(os.path.basename(os.fspath(argument)))
        elif kind := getattr(argument, "kind", ""):
            details = (getattr(argument, name, "") for name in ("stage", "run"))
            names.update((kind, *(f"{kind}-{detail}" for detail in details if detail)))
    return names


def claim(point: Point) -> bool:
    """Return whether the point strikes now: it has not struck before."""
    try:
        os.close(os.open(os.path.join(os.environ["CHAOS_STRUCK"], file_name(point.text)), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def write_half_a_line(log: Any, event: Any) -> None:
    from reid_tune.journal.events import to_line

    line = to_line(event)
    os.write(log._file.fileno(), line[: len(line) // 2])


def wrap(function: Callable[..., Any], point: Point) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        names = argument_names([*arguments, *options.values()]) if point.name else set()
        is_hit = not point.name or bool(fnmatch.filter(names, point.name))
        if is_hit and point.moment != "after" and claim(point):
            if point.moment == "within":
                write_half_a_line(*arguments)
            os.kill(os.getpid(), point.signal)
        result = function(*arguments, **options)
        if is_hit and point.moment == "after" and claim(point):
            os.kill(os.getpid(), point.signal)
        return result

    return wrapped


def inject(module: ModuleType, points: Sequence[Point]) -> None:
    """Wrap the functions of a module that the points name."""
    for point in points:
        owner: Any = module
        *path, name = point.function.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, name, wrap(getattr(owner, name), point))


class Injector(importlib.abc.MetaPathFinder):
    """Injects points into a module as soon as it has been imported."""

    def __init__(self, points: dict[str, list[Point]]) -> None:
        self.points = points

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in self.points:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_inject(module: ModuleType) -> None:
            execute(module)
            inject(module, self.points[name])

        spec.loader.exec_module = execute_and_inject  # type: ignore[method-assign]
        return spec


def install(text: str) -> None:
    role = "worker" if any("default_worker" in word for word in sys.orig_argv) else "driver"
    points: dict[str, list[Point]] = {}
    for point in map(parse_point, filter(None, text.split(";"))):
        if point.victim == role:
            points.setdefault(point.module, []).append(point)
    for name in list(points):
        if name in sys.modules:
            inject(sys.modules[name], points.pop(name))
    sys.meta_path.insert(0, Injector(points))


if points_text := os.environ.get("CHAOS_POINTS"):
    install(points_text)


def change_clock(path: str) -> None:
    machine = time.time

    def now() -> float:
        with open(path) as file:
            return machine() + 86_400 * int(file.read())

    time.time, time.time_ns = now, lambda: int(now() * 1e9)


if clock_path := os.environ.get("CHAOS_CLOCK"):
    change_clock(clock_path)
