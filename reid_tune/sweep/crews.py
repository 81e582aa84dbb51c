"""What the runs of a sweep hold on the cluster as it is now, and how many fit; Ray must be there."""

from reid_tune.errors import InputError, about
from reid_tune.sweep.budget import Crew
from reid_tune.sweep.cluster.placement import Placement, place
from reid_tune.sweep.file import Sweep
from reid_tune.sweep.runs.source import Holds

__all__ = ["crew_of", "placement_now", "room"]


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
