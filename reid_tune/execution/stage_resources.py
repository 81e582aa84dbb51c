"""What the runs of a sweep hold on the cluster as it is now, and how many fit; Ray must be there."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from reid_tune.errors import InputError, error_context
from reid_tune.execution.placement import Placement, compute_placement
from reid_tune.execution.run_source import ResourceRequest
from reid_tune.journal.costs import Cost
from reid_tune.search_space.load import SweepConfig

__all__ = ["StageResources", "resolve_stage_resources", "find_placement", "find_capacity"]


@dataclass(frozen=True)
class StageResources:
    """What each run of a stage holds, and how many are at work at once."""

    per_run: ResourceRequest
    max_concurrent: int

    def cost(self, seconds: Sequence[float]) -> Cost:
        """Of runs that take so long, each begun as soon as there is room."""
        ends = [0.0] * self.max_concurrent
        for each in seconds:
            heapq.heapreplace(ends, ends[0] + each)
        held = sum(seconds) / 3600
        return Cost(max(ends) / 3600, held * self.per_run.gpus, held * self.per_run.cpus)


def resolve_stage_resources(sweep: SweepConfig, workers: int) -> StageResources:
    """What the runs of a stage hold, and how many fit at once.

    Raises:
        InputError: not one run fits, now or ever.
    """
    with error_context(sweep.source):
        placement = compute_placement(sweep.file.resources, workers)
    request = ResourceRequest(workers * placement.cpus, workers * placement.gpus, workers, placement.custom)
    return StageResources(request, placement.max_concurrent)


def find_placement(sweep: SweepConfig, workers: int) -> Placement | None:
    """What a worker of a run gets; None where not one run fits: nodes were lost that may come back."""
    try:
        return compute_placement(sweep.file.resources, workers)
    except InputError:
        return None


def find_capacity(sweep: SweepConfig, workers: int) -> int:
    """How many runs fit by now."""
    placement = find_placement(sweep, workers)
    return placement.max_concurrent if placement else 0
