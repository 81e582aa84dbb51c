"""What the runs of a sweep hold on the cluster as it is now, and how many fit; Ray must be there."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from reid_tune.errors import InputError, about
from reid_tune.execution.cluster.placement import Placement, place
from reid_tune.execution.run_source import Holds
from reid_tune.journal.costs import Spent
from reid_tune.search_space.load import Sweep

__all__ = ["Crew", "crew_of", "placement_now", "room"]


@dataclass(frozen=True)
class Crew:
    """What each run of a stage holds, and how many are at work at once."""

    holds: Holds
    at_once: int

    def cost(self, seconds: Sequence[float]) -> Spent:
        """Of runs that take so long, each begun as soon as there is room."""
        ends = [0.0] * self.at_once
        for each in seconds:
            heapq.heapreplace(ends, ends[0] + each)
        held = sum(seconds) / 3600
        return Spent(max(ends) / 3600, held * self.holds.gpus, held * self.holds.cpus)


def crew_of(sweep: Sweep, workers: int) -> Crew:
    """What the runs of a stage hold, and how many fit at once.

    Raises:
        InputError: not one run fits, now or ever.
    """
    with about(sweep.source):
        placement = place(sweep.file.resources, workers)
    holds = Holds(workers * placement.cpus, workers * placement.gpus, workers, placement.more)
    return Crew(holds, placement.at_once)


def placement_now(sweep: Sweep, workers: int) -> Placement | None:
    """What a worker of a run gets; None where not one run fits: nodes were lost that may come back."""
    try:
        return place(sweep.file.resources, workers)
    except InputError:
        return None


def room(sweep: Sweep, workers: int) -> int:
    """How many runs fit by now."""
    placement = placement_now(sweep, workers)
    return placement.at_once if placement else 0
