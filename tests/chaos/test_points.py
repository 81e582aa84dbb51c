"""The kill points are complete, and name functions that exist."""

import signal
from functools import reduce
from importlib import import_module
from itertools import chain
from types import SimpleNamespace

import pytest

from reid_tune.journal.events import KINDS

from .injection.sitecustomize import argument_names, parse_point
from .points import POINTS

# Of single trainings, and three that take another budget or space, see `tests/sweep`.
WITHOUT_POINTS = {"train", "epoch", "paused", "reopened", "space"}


def test_every_kind_of_event_has_points_before_within_and_after_its_line() -> None:
    points = [parse_point(text) for text in chain.from_iterable(POINTS.values())]
    moments = {(point.name.partition("-")[0], point.moment) for point in points if point.function == "EventLog.append"}
    assert moments == {
        (kind, moment) for kind in KINDS.keys() - WITHOUT_POINTS for moment in ("before", "within", "after")
    }


def test_every_point_names_a_function() -> None:
    for point in map(parse_point, chain.from_iterable(POINTS.values())):
        assert callable(reduce(getattr, point.function.split("."), import_module(point.module)))


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("/runs/small/driver.json", {"driver.json"}),
        (SimpleNamespace(kind="stage_done", stage="search"), {"stage_done", "stage_done-search"}),
        (SimpleNamespace(kind="ended", run="trials/0000"), {"ended", "ended-trials/0000"}),
        (7, set()),
    ],
)
def test_names_of_arguments(argument: object, names: set[str]) -> None:
    assert argument_names([argument]) == names


def test_a_point_may_have_a_name_and_a_signal() -> None:
    point = parse_point("worker after os:replace *.pth SIGSTOP")
    assert (point.victim, point.moment, point.module, point.function) == ("worker", "after", "os", "replace")
    assert (point.name, point.signal) == ("*.pth", signal.SIGSTOP)
    assert parse_point("driver before os:replace").signal == signal.SIGKILL
